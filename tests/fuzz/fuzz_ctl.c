// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The control socket: the input is what a client sends, in front of it what
 * somebody wrote into the pool.
 *
 *   SHAPE PATCH* LINE*    SHAPE: one byte, an image and whether it is open for
 *                         writing.  PATCH: "!" and 16 bytes, as in patch.h
 *
 * ctl.c itself is compiled in, over a socket that is this file's, and what it
 * takes for a request is executed on the engine, on simulated disks.  Beside what
 * disk.h lists, what is wrong is an answer that the client cannot read.
 *
 * Paths in requests are replaced: they would be files of this machine.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libvol/handle.h"

static ssize_t fuzz_recv(int fd, void *buf, size_t size, int flags);
static ssize_t fuzz_sendmsg(int fd, const struct msghdr *m, int flags);
static int fuzz_poll(struct pollfd *p, nfds_t n, int ms);
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
#include "libvol/ctl.c"
#undef recv
#undef sendmsg
#undef poll
#undef vol_execute
#undef vol_server_start
#undef vol_server_stop
#undef vol_server_hooks_of
#undef vol_server_stopping

#include "patch.h"

#define LINES_MAX 60u
#define TURNS_MAX 300u

/* ---- the socket --------------------------------------------------------------- */

static const uint8_t *input;
static size_t left;
static char *output;
static size_t have, room;
static unsigned lines;

static ssize_t fuzz_recv(int fd, void *buf, size_t size, int flags)
{
	size_t n = vd_min(vd_min(size, left), (size_t)1 + left % 700); /* in pieces */

	(void)fd, (void)flags;
	if (lines > LINES_MAX)
		n = 0;
	if (n)
		memcpy(buf, input, n);
	input += n;
	left -= n;
	return (ssize_t)n;
}

/* What a client makes of a line: exactly one of four. */
static void check_line(const char *line, size_t len)
{
	static const char *const keys[] = { "part", "progress", "result", "error" };
	struct json_object *o = json_tokener_parse(line), *e;
	unsigned k, n = 0;
	const char *text;

	if (strlen(line) != len || !json_object_is_type(o, json_type_object))
		fz_fault("an answer that is no JSON object: %s", line);
	for (k = 0; k < 4; k++)
		n += json_object_object_get_ex(o, keys[k], NULL);
	if (n != 1 || json_object_object_length(o) != 1)
		fz_fault("an answer of no known kind: %s", line);
	if (json_get(o, "error", json_type_object, &e)) {
		struct json_object *no;

		if (!json_get(e, "errno", json_type_int, &no) || json_object_get_int(no) >= 0 || json_object_get_int(no) < -200)
			fz_fault("an error without a number: %s", line);
		if (!json_get_str(e, "message", &text) || !*text)
			fz_fault("an error without words: %s", line);
	}
	json_object_put(o);
}

static ssize_t fuzz_sendmsg(int fd, const struct msghdr *m, int flags)
{
	size_t total = 0, i, len;
	char *end;

	(void)fd, (void)flags;
	for (i = 0; i < m->msg_iovlen; i++) {
		const struct iovec *v = &m->msg_iov[i];

		while (have + v->iov_len + 1 > room)
			output = realloc(output, room = 2 * room + 65536);
		if (!output)
			abort();
		memcpy(output + have, v->iov_base, v->iov_len);
		have += v->iov_len;
		total += v->iov_len;
	}
	while ((end = memchr(output, '\n', have))) {
		len = (size_t)(end - output);
		*end = 0;
		check_line(output, len);
		have -= len + 1;
		memmove(output, end + 1, have);
	}
	return (ssize_t)total;
}

static int fuzz_poll(struct pollfd *p, nfds_t n, int ms)
{
	(void)p, (void)n, (void)ms;
	return 1;
}

/* ---- requests --------------------------------------------------------------------- */

static struct fz_disk disk;
static char directory[64];

static void clean_up(void)
{
	static const char *const file[] = { "new", "base", "devices", "devices.lock", "devices.new" };
	char path[96];

	for (unsigned i = 0; i < sizeof(file) / sizeof(file[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", directory, file[i]);
		unlink(path);
	}
	rmdir(directory);
}

static void no_log(void *arg, enum vol_log_level level, const char *text)
{
	(void)arg;
	if (getenv("FZ_VERBOSE"))
		fprintf(stderr, "vol[%d]: %s\n", level, text);
}

static void prepare(void)
{
	char path[96];
	int fd;

	snprintf(directory, sizeof(directory), "/dev/shm/vd-fuzz-ctl.%d", (int)getpid());
	if (mkdir(directory, 0700) && errno != EEXIST)
		abort();
	atexit(clean_up);
	setenv("VD_CONFIG_DIR", directory, 1);
	setenv("VD_RUNTIME_DIR", directory, 1);
	vol_set_log(no_log, NULL);
	snprintf(path, sizeof(path), "%s/base", directory);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	if (fd < 0 || ftruncate(fd, 10000))
		abort();
	close(fd);
}

static void replace_path(struct json_object *args, const char *key)
{
	const char *was;
	char path[96];

	if (!json_get_str(args, key, &was) || was[0] != '/')
		return;
	snprintf(path, sizeof(path), "%s/%s", directory, strlen(was) % 4 == 3 ? "nothing" : key[0] == 'b' ? "base" : "new");
	json_object_object_add(args, key, json_object_new_string(path));
}

static int fuzz_execute(struct vol_request *rq, struct json_object **result)
{
	unsigned turns = 0;
	const char *op;
	char path[96];
	int r;

	lines++;
	replace_path(rq->args, "path");
	replace_path(rq->args, "base");
	if (json_get_str(rq->args, "op", &op) && !strcmp(op, "pool-add")) {
		snprintf(path, sizeof(path), "%s/new", directory);
		if (disk.sim->nmembers < 4)
			sim_add(disk.sim, 2304);
		r = vol_execute(rq, result);
		unlink(path);
		snprintf(path, sizeof(path), "%s/devices", directory);
		unlink(path);
	} else {
		r = vol_execute(rq, result);
	}
	fz_answer("vol_execute", r);
	if (r && !rq->err.text[0])
		fz_fault("an error without words: %d", r);
	while (vd_pool_work(rq->pool->engine) == 1)
		if (++turns > TURNS_MAX)
			fz_fault("there is always more to do in the background");
	return r;
}

static unsigned no_connections(void *arg, unsigned ms)
{
	(void)arg, (void)ms;
	return 0;
}

static void stop(void *arg)
{
	(void)arg;
}

/* ---- one run ---------------------------------------------------------------------- */

static const uint8_t *take_patches(const uint8_t *data, size_t *size, const struct fz_map *map)
{
	struct fz_patch patch[FZ_PATCHES];
	unsigned n = 0;

	while (*size > sizeof(patch[0]) && *data == '!') {
		if (n < FZ_PATCHES)
			memcpy(&patch[n++], data + 1, sizeof(patch[0]));
		data += 1 + sizeof(patch[0]);
		*size -= 1 + sizeof(patch[0]);
	}
	fz_patch(disk.sim, map, 0, map->n, patch, n);
	return data;
}

static void run(const uint8_t *data, size_t size)
{
	static struct vol_server server;
	struct connection c = { .server = &server, .fd = -1 };
	struct vol_pool pool = { .name = "fuzz", .uuid = "pool-of-fuzzing" };
	struct vd_disk_holder self;
	const struct fz_map *map;
	struct vd_host host;
	struct vd_volume *held = NULL;
	unsigned flags;

	if (!size)
		return;
	if (!directory[0])
		prepare();
	map = fz_map((uint8_t)(*data - '0') % FZ_TALL);
	flags = *data & 64 ? VD_OPEN_READONLY : 0;
	fz_disk_init(&disk, sim_copy(map->sim), false);
	disk.sim->no_tail = true;
	size--;
	data = take_patches(data + 1, &size, map);
	fz_host(&disk, &host);
	vol_holder_self(&self, "fuzz_ctl");
	if (vd_pool_open(&host, flags, &self, &pool.engine))
		goto out;
	if (vol_host_new(&pool.host))
		abort();
	pool.flags = VOL_OFFLINE | (flags ? VOL_READONLY : 0);
	pool.have_owner = !vd_owner_read(&host, 0, &pool.owner);
	server.pool = &pool;
	server.hooks = (struct vol_server_hooks){ .connections = no_connections, .stop = stop, .nbd_socket = "/run/x" };
	if (vd_volume_open(pool.engine, 2, &held)) /* as if it were served */
		held = NULL;
	input = data;
	left = size;
	have = lines = 0;
	converse(&c);
	if (have)
		fz_fault("an answer without an end");
	if (held)
		vd_volume_close(held);
	if (fz_answer("vd_pool_close", vd_pool_close(pool.engine)) == -EBUSY)
		fz_fault("a request left a volume open");
	vol_host_free(pool.host);
out:
	fz_disk_fini(&disk);
}

/* ---- mutator: requests that nearly are ones ------------------------------------------ */

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);

static const char *const op_names[] = {
	"ping", "pool-info", "pool-check", "pool-dump", "pool-add", "pool-set", "flush", "checkpoint", "stop-if-unused", "list",
	"create", "remove", "rename", "resize", "set", "lock", "unlock", "pointer-add", "pointer-set", "pointer-del", "snapshot",
	"rollback", "diff", "usage", "x",
};
static const struct { const char *key; char type; } args[] = {
	{ "volume", 'v' }, { "to", 'v' }, { "a", 'v' }, { "b", 'v' }, { "snapshot", 'v' }, { "size", 'n' }, { "grow", 'n' },
	{ "shrink", 'n' }, { "link", 'n' }, { "readonly", 'b' }, { "locked", 'b' }, { "force", 'b' }, { "test", 'b' },
	{ "quick", 'b' }, { "allow_shrink", 'b' }, { "take", 'b' }, { "mode", 'm' }, { "attrs", 'o' }, { "snapshots", 's' },
	{ "names", 'l' }, { "thresholds", 't' }, { "policy", 'p' }, { "discards", 'd' }, { "path", '/' }, { "base", '/' }, { "opened_as", 'w' },
	{ "mount", 'w' }, { "server", 'w' }, { "holder", 'h' }, { "holder", 'h' }, { "holder", 'h' },
};
static const char *const names[] = { "a", "b", "c", "locked", "a@1", "a@2", "b@2", "gone", "new", "v", "w", "f", "f@1", "half", "" };

static size_t value(struct rng *r, char type, char *s, size_t size)
{
	const char *n = names[rng_below(r, sizeof(names) / sizeof(names[0]))], *m = names[rng_below(r, sizeof(names) / sizeof(names[0]))];
	static const char kinds[] = "vnbmoslptw/h";

	if (rng_one_in(r, 25))
		type = kinds[rng_below(r, sizeof(kinds) - 1)];
	switch (type) {
	case 'n':
		return (size_t)snprintf(s, size, "%lld", (long long)(rng_one_in(r, 3) ? fz_interesting(r) : rng_below(r, 4096) << 12));
	case 'b':
		return (size_t)snprintf(s, size, "%s", rng_below(r, 3) ? "true" : "false");
	case 'm':
		return (size_t)snprintf(s, size, "\"r%c\"", "wo"[rng_below(r, 2)]);
	case 'o':
		return (size_t)snprintf(s, size, "{\"%s\":\"%s\",\"k%llu\":%s}", n, m, (unsigned long long)rng_below(r, 9),
					rng_one_in(r, 2) ? "null" : "\"x\"");
	case 's':
		return (size_t)snprintf(s, size, "[{\"volume\":\"%s\"},{\"volume\":\"%s\",\"name\":\"s%llu\"}]", n, m,
					(unsigned long long)rng_below(r, 50));
	case 'l':
		return (size_t)snprintf(s, size, "[\"%s\",\"%s\"]", n, m);
	case 't':
		return (size_t)snprintf(s, size, "[%llu,1000]", (unsigned long long)rng_below(r, 1200));
	case 'p':
		return (size_t)snprintf(s, size, "\"%s\"", rng_one_in(r, 2) ? "queue" : "error");
	case 'd':
		return (size_t)snprintf(s, size, "\"%s\"", rng_one_in(r, 2) ? "passdown" : "nopassdown");
	case '/':
		return (size_t)snprintf(s, size, "\"/%.*s\"", (int)rng_below(r, 5), "abcdefg");
	case 'h':
		return (size_t)snprintf(s, size, "{\"host\":\"11111111-1111-1111-1111-111111111111\",\"boot\":\"22222222-2222-2222-2222-22222222222%llu\",\"hostname\":\"h\",\"purpose\":\"p\",\"pid\":%llu,\"since\":0}",
					(unsigned long long)rng_below(r, 2), (unsigned long long)rng_below(r, 3));
	default:
		return (size_t)snprintf(s, size, "\"%s\"", n);
	}
}

static size_t make_line(struct rng *r, char *s, size_t size)
{
	static const char *const usual[] = { "volume", "holder", "size", "to", "a", "b", "snapshot", "snapshots", "mode", "link" };
	size_t n, i, k, nargs = sizeof(args) / sizeof(args[0]);

	n = (size_t)snprintf(s, size, "{\"op\":\"%s\"", op_names[rng_below(r, sizeof(op_names) / sizeof(op_names[0]))]);
	for (i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
		for (k = 0; k < nargs; k++)
			if (!strcmp(args[k].key, usual[i]) && rng_below(r, 8)) {
				n += (size_t)snprintf(s + n, size - n, ",\"%s\":", args[k].key);
				n += value(r, args[k].type, s + n, size - n);
				break;
			}
	for (i = rng_below(r, 4); i; i--) {
		k = rng_below(r, nargs);
		n += (size_t)snprintf(s + n, size - n, ",\"%s\":", args[k].key);
		n += value(r, args[k].type, s + n, size - n);
	}
	return n + (size_t)snprintf(s + n, size - n, "}\n");
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	struct rng r = rng_seeded(seed * 0x9e3779b97f4a7c15ull);
	struct fz_patch p;
	uint8_t *at, *end;
	char line[4096];
	size_t n;

	if (size && rng_one_in(&r, 3))
		return LLVMFuzzerMutate(data, size, max);
	if (!size)
		data[size++] = '0';
	if (rng_one_in(&r, 10)) { /* a patch, in front */
		if (size + 1 + sizeof(p) > max)
			return size;
		fz_patches.make(&r, &p);
		memmove(data + 1 + 1 + sizeof(p), data + 1, size - 1);
		data[1] = '!';
		memcpy(data + 2, &p, sizeof(p));
		return size + 1 + sizeof(p);
	}
	if (rng_one_in(&r, 20)) {
		data[0] = (uint8_t)((rng_one_in(&r, 4) ? 'p' : '0') + rng_below(&r, FZ_TALL));
		return size;
	}
	at = data + 1 + rng_below(&r, size);
	at = at < data + size ? memchr(at, '\n', (size_t)(data + size - at)) : NULL;
	at = at ? at + 1 : data + size;
	end = at < data + size ? memchr(at, '\n', (size_t)(data + size - at)) : NULL;
	if (end && rng_one_in(&r, 4)) { /* one line less */
		n = (size_t)(end + 1 - at);
		memmove(at, end + 1, (size_t)(data + size - (end + 1)));
		return size - n;
	}
	n = make_line(&r, line, sizeof(line));
	if (size + n > max)
		return size;
	memmove(at + n, at, (size_t)(data + size - at));
	memcpy(at, line, n);
	return size + n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	run(data, size);
	return 0;
}
