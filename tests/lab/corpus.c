// SPDX-License-Identifier: GPL-2.0-only
/*
 * corpus DISK WHOLE <ANSWERS   images of pools that the fuzzers made (tests/fuzz/save.c), each
 * opened by the kernel, and a volume read; of one in WHOLE images all volumes, and it is
 * changed then.  Says in which it differs from the engine in userspace, and ends with 1 if
 * it does in any.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libdevmapper.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "port.h"

#define PLACE (16ull << 20)
#define PIECE 65536u
#define PIECES 16u

static char *buf;

/* ---- devices ------------------------------------------------------------------- */

static bool create(const char *name, uint64_t sectors, const char *target, bool ro, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
static bool create(const char *name, uint64_t sectors, const char *target, bool ro, const char *fmt, ...)
{
	struct dm_task *task = dm_task_create(DM_DEVICE_CREATE);
	char params[256];
	va_list ap;
	bool ok;

	va_start(ap, fmt);
	vsnprintf(params, sizeof(params), fmt, ap);
	va_end(ap);
	ok = dm_task_set_name(task, name) && dm_task_add_target(task, 0, sectors, target, params) && (!ro || dm_task_set_ro(task)) && dm_task_run(task);
	dm_task_destroy(task);
	dm_task_update_nodes();
	return ok;
}

static void gone(const char *name)
{
	struct dm_task *task = dm_task_create(DM_DEVICE_REMOVE);

	if (!dm_task_set_name(task, name) || !dm_task_retry_remove(task) || !dm_task_run(task)) {
		printf("%s cannot be removed\n", name);
		exit(1);
	}
	dm_task_destroy(task);
	dm_task_update_nodes();
}

/* What the message answers is put into `said`. */
static bool message(const char *text, char *said, size_t size)
{
	struct dm_task *task = dm_task_create(DM_DEVICE_TARGET_MSG);
	const char *answer;
	bool ok;

	ok = dm_task_set_name(task, "pool") && dm_task_set_sector(task, 0) && dm_task_set_message(task, text) && dm_task_run(task);
	answer = ok ? dm_task_get_message_response(task) : NULL;
	if (said)
		snprintf(said, size, "%s", answer ? answer : "");
	dm_task_destroy(task);
	return ok;
}

/* "rw", "ro": the status' fifth field; what is out of space is as good as rw */
static const char *mode(void)
{
	struct dm_task *task = dm_task_create(DM_DEVICE_STATUS);
	uint64_t start, length;
	char *type = NULL, *params = NULL, word[32] = "";

	if (dm_task_set_name(task, "pool") && dm_task_run(task)) {
		dm_get_next_target(task, NULL, &start, &length, &type, &params);
		if (!params || sscanf(params, "%*s %*s %*s %*s %31s", word) != 1)
			snprintf(word, sizeof(word), "%s", params ? params : "?");
	}
	dm_task_destroy(task);
	return !strcmp(word, "rw") || !strcmp(word, "out_of_data_space") ? "rw" : "ro";
}

/* 0: there is none of that name, or it is another volume. */
static uint64_t sectors_of(const char *name, unsigned id)
{
	char text[256], said[16384];
	unsigned long long sectors;
	unsigned is;

	snprintf(text, sizeof(text), "show %s", name);
	return message(text, said, sizeof(said)) && sscanf(said, "id %u uuid %*s size %llu", &is, &sectors) == 2 && is == id ? sectors : 0;
}

/* ---- one image ------------------------------------------------------------------ */

static void add_volume(unsigned id, const char *name, FILE *said)
{
	uint64_t sectors = sectors_of(name, id);
	uint32_t crc = ~0u;
	unsigned i;
	int fd;

	if (sectors > PIECES * PIECE / 512)
		sectors = PIECES * PIECE / 512;
	if (!sectors || !create("volume", sectors, "vd-volume", true, "/dev/mapper/pool %s", name)) {
		fprintf(said, " %u:-", id);
		return;
	}
	fd = open("/dev/mapper/volume", O_RDONLY | O_DIRECT);
	for (i = 0; fd >= 0 && (i + 1ull) * PIECE <= sectors * 512; i++) {
		if (pread(fd, buf, PIECE, (off_t)(i * PIECE)) != PIECE)
			memset(buf, 'E', PIECE);
		crc = vd_port_crc32c(crc, buf, PIECE);
	}
	close(fd);
	gone("volume");
	fprintf(said, " %u:%08x", id, crc);
}

/* What runs in the background finds damage when it comes to it: the pool is read-only from then on. */
static bool is_same(const char *here, const char *there)
{
	return !strcmp(here, there) || (!strncmp(here, "ro", 2) && !strncmp(there, "rw", 2) && !strcmp(here + 2, there + 2));
}

/* Whatever comes of it. */
static void change(void)
{
	unsigned i;
	int fd;

	message("create_thin work 2048", NULL, 0);
	if (create("volume", 2048, "vd-volume", false, "/dev/mapper/pool work")) {
		fd = open("/dev/mapper/volume", O_RDWR | O_DIRECT);
		memset(buf, 'w', PIECE);
		for (i = 0; i < 4; i++)
			if (pwrite(fd, buf, PIECE, (off_t)(i * 3 * PIECE)) < 0)
				break;
		if (!fsync(fd))
			message("create_snap work@1 work", NULL, 0);
		if (pwrite(fd, buf, 4096, 512) > 0)
			fsync(fd);
		close(fd);
		gone("volume");
	}
	message("create_snap a@9 a", NULL, 0);
	message("delete a@1", NULL, 0);
	message("delete work", NULL, 0);
	message("checkpoint", NULL, 0);
}

static void answer(const char *disk, unsigned number, const uint64_t blocks[2], bool whole, FILE *said)
{
	unsigned n = blocks[1] ? 2 : 1, m, id;
	static char list[65536];
	char *p, *next;

	for (m = 0; m < n; m++) {
		const char *name = m ? "m1" : "m0";

		if (!create(name, blocks[m] * 8, "linear", false, "%s %llu", disk, (2ull * number + m) * (uint64_t)(PLACE / 512))) {
			printf("%s cannot be made\n", name);
			exit(1);
		}
	}
	if (!create("pool", 1024, "vd-pool", false, n == 2 ? "2 /dev/mapper/m0 /dev/mapper/m1" : "1 /dev/mapper/m0")) {
		fprintf(said, "refused");
	} else {
		fprintf(said, "%s", mode());
		if (message("list", list, sizeof(list)))
			for (p = list; *p; p = next) {
				next = p + strcspn(p, "\n");
				if (*next)
					*next++ = 0;
				id = (unsigned)strtoul(p, &p, 10);
				add_volume(id, p + (*p == ' '), said);
				if (!whole)
					break;
			}
		if (whole)
			change();
		gone("pool");
	}
	for (m = 0; m < n; m++)
		gone(m ? "m1" : "m0");
}

static void quiet_log(int level, const char *file, int line, int code, const char *fmt, ...)
{
	(void)level; (void)file; (void)line; (void)code; (void)fmt; /* refusals are expected */
}

int main(int argc, char **argv)
{
	unsigned number, n = 0, opened = 0, refused = 0, differ = 0;
	char *line = NULL, *first, want[65536];
	uint64_t blocks[2];
	size_t size;
	bool whole;

	if (argc < 3 || atoi(argv[2]) < 1 || posix_memalign((void **)&buf, 4096, PIECE))
		return 1;
	dm_log_with_errno_init(quiet_log);
	dm_udev_set_sync_support(0); /* nodes are made here */
	dm_udev_set_checking(0);
	while (scanf("%u %" SCNu64 " %" SCNu64 " %65535[^\n]", &number, &blocks[0], &blocks[1], want) == 4) {
		FILE *said = open_memstream(&line, &size);

		whole = !(number % (unsigned)atoi(argv[2]));
		answer(argv[1], number, blocks, whole, said);
		fclose(said);
		first = strchr(want, ' ');
		if (!whole && first)
			first[1 + strcspn(first + 1, " ")] = 0;
		n++;
		if (strcmp(line, "refused"))
			opened++;
		else
			refused++;
		if (strcmp(want, "?") && !is_same(line, want)) {
			if (differ++ < 8)
				printf("image %u: here %s\n           not %s\n", number, line, want);
		}
		free(line);
	}
	printf("%u images: %u opened, %u refused, %u otherwise than in userspace\n", n, opened, refused, differ);
	return !n || differ;
}
