// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The control socket: the input is what a client sends.  ctl.c itself is
 * compiled in, over a socket that is this file's, and what it takes for a
 * request is executed on a pool of two small files.
 *
 * A request to add a member is refused here: its path would be a file of this
 * machine.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../libvol/host.h"

static const uint8_t *input;
static size_t left;

static ssize_t fuzz_recv(int fd, void *buf, size_t size, int flags)
{
	size_t n = size < left ? size : left;

	(void)fd, (void)flags;
	if (n)
		memcpy(buf, input, n);
	input += n;
	left -= n;
	return (ssize_t)n;
}

static ssize_t fuzz_sendmsg(int fd, const struct msghdr *m, int flags)
{
	ssize_t n = 0;

	(void)fd, (void)flags;
	for (size_t i = 0; i < m->msg_iovlen; i++)
		n += (ssize_t)m->msg_iov[i].iov_len;
	return n;
}

static int fuzz_poll(struct pollfd *p, nfds_t n, int ms)
{
	(void)p, (void)n, (void)ms;
	return 1;
}

static int fuzz_execute(struct vol_request *rq, struct json_object **result);

#define recv fuzz_recv
#define sendmsg fuzz_sendmsg
#define poll fuzz_poll
#define vol_execute fuzz_execute
/* libvol's own are linked in too */
#define vol_server_start fuzz_server_start
#define vol_server_stop fuzz_server_stop
#define vol_server_hooks_of fuzz_server_hooks_of
#define vol_server_stopping fuzz_server_stopping
#include "../../libvol/ctl.c"
#undef vol_execute
#undef vol_server_hooks_of

static int fuzz_execute(struct vol_request *rq, struct json_object **result)
{
	const char *op;

	if (json_get_str(rq->args, "op", &op) && !strcmp(op, "pool-add"))
		return vol_failbuf(&rq->err, -EPERM, "not here");
	return vol_execute(rq, result);
}

static struct vol_server server;

static void no_log(void *arg, enum vol_log_level level, const char *text)
{
	(void)arg, (void)level, (void)text;
}

static void clean_up(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf /dev/shm/vd-fuzz-ctl.%d", (int)getpid());
	if (system(command))
		perror(command);
}

static void make_pool(void)
{
	char dir[64], a[80], b[80];
	const char *path[2] = { a, b };
	struct vol_pool_spec spec = { .name = "f", .path = path, .npaths = 2, .file_size = 64u << 20, .error_if_full = true };
	uint8_t uuid[16];

	snprintf(dir, sizeof(dir), "/dev/shm/vd-fuzz-ctl.%d", (int)getpid());
	snprintf(a, sizeof(a), "%s/a", dir);
	snprintf(b, sizeof(b), "%s/b", dir);
	if (mkdir(dir, 0700))
		abort();
	atexit(clean_up);
	setenv("VD_CONFIG_DIR", dir, 1);
	setenv("VD_RUNTIME_DIR", dir, 1);
	vol_set_log(no_log, NULL);
	if (vol_pool_create(&spec, uuid) || vol_pool_open("f", VOL_OFFLINE, &server.pool)) {
		fprintf(stderr, "%s\n", vol_error(NULL));
		abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct connection c = { .server = &server, .fd = -1 };

	if (!server.pool)
		make_pool();
	input = data;
	left = size;
	converse(&c);
	return 0;
}
