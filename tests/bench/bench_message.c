// SPDX-License-Identifier: GPL-2.0-only
/*
 * bench_message DEVICE COUNT MESSAGE: sends a device-mapper target COUNT messages and prints
 * the nanoseconds that each took.  @ in MESSAGE is its number, from 1.  One process sends all,
 * since beginning one takes longer than a message.
 */
#include <libdevmapper.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int send_message(const char *device, const char *message, long *ns)
{
	struct dm_task *task = dm_task_create(DM_DEVICE_TARGET_MSG);
	struct timespec from, to;
	int ok;

	if (!task)
		return -1;
	ok = dm_task_set_name(task, device) && dm_task_set_sector(task, 0) && dm_task_set_message(task, message);
	clock_gettime(CLOCK_MONOTONIC, &from);
	ok = ok && dm_task_run(task);
	clock_gettime(CLOCK_MONOTONIC, &to);
	dm_task_destroy(task);
	*ns = (to.tv_sec - from.tv_sec) * 1000000000L + to.tv_nsec - from.tv_nsec;
	return ok ? 0 : -1;
}

int main(int argc, char **argv)
{
	const char *at = argc == 4 ? strchr(argv[3], '@') : NULL;
	char message[256];
	long ns, i;

	if (!at) {
		fprintf(stderr, "usage: bench_message DEVICE COUNT MESSAGE-WITH-@\n");
		return 2;
	}
	for (i = 1; i <= atol(argv[2]); i++) {
		snprintf(message, sizeof(message), "%.*s%ld%s", (int)(at - argv[3]), argv[3], i, at + 1);
		if (send_message(argv[1], message, &ns)) {
			fprintf(stderr, "bench_message: %s: \"%s\" failed\n", argv[1], message);
			return 1;
		}
		printf("%ld\n", ns);
	}
	return 0;
}
