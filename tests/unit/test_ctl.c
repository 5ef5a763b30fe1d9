// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * libvol/ctl.c against clients that mean no good: each gets an error, and the
 * server goes on for the others (C1-C4 are the rules at ctl.c's head).
 */
#include "volrig.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static struct vol_pool *pool;
static struct vol_server *server;
static unsigned stops;

static void on_stop(void *arg)
{
	(void)arg;
	stops++;
}

static int setup(void **state)
{
	static const struct vol_server_hooks hooks = { .stop = on_stop, .nbd_socket = "/somewhere" };

	stops = 0;
	if (rig_setup(state))
		return -1;
	rig_pool("t", 1, 64u << 20);
	pool = rig_open("t", VOL_OFFLINE);
	rig_ok(pool, "{'op':'create','volume':'v','size':1048576}");
	if (vol_server_start(pool, &hooks, &server))
		fail_msg("%s", vol_error(NULL));
	return 0;
}

static int teardown(void **state)
{
	vol_server_stop(server);
	rig_close(pool);
	return rig_teardown(state);
}

static int raw_connect(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/run/t.ctl", rig_dir);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static void put(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
		if (n <= 0)
			return; /* it has had enough */
		text += n;
		len -= (size_t)n;
	}
}

/* One line of answer, as JSON; NULL: the connection was closed. */
static struct json_object *get(int fd)
{
	static char line[1 << 20];
	size_t n = 0;

	while (n < sizeof(line) - 1) {
		ssize_t k = recv(fd, line + n, 1, 0);
		if (k <= 0)
			return NULL;
		if (line[n] == '\n')
			break;
		n++;
	}
	line[n] = 0;
	struct json_object *o = json_tokener_parse(line);
	assert_non_null(o);
	return o;
}

static int64_t error_of(int fd)
{
	struct json_object *o = get(fd), *e, *v;
	int64_t r = 0;

	if (!o)
		return 0;
	if (json_get(o, "error", json_type_object, &e)) {
		assert_true(json_str(e, "message")[0]);
		assert_true(json_get(e, "errno", json_type_int, &v));
		r = json_object_get_int64(v);
		assert_true(r < 0);
	}
	json_object_put(o);
	return r;
}

static void server_still_answers(void)
{
	struct vol_pool *client;
	struct json_object *a;
	int r = -EAGAIN;

	/* Connections that ended count until that is noticed. */
	for (unsigned i = 0; r == -EAGAIN && i < 6000; i++) {
		if (i) {
			rig_close(client);
			usleep(10000);
		}
		client = rig_open("t", 0);
		assert_true(vol_pool_is_remote(client));
		r = rig_call(client, &a, "{'op':'ping'}");
	}
	assert_int_equal(r, 0);
	assert_string_equal(json_str(a, "name"), "t");
	assert_string_equal(json_str(a, "nbd"), "/somewhere");
	json_object_put(a);
	rig_close(client);
}

static void what_is_not_json_gets_an_error(void **state)
{
	static const char *const lines[] = {
		"", "hello", "{", "[]", "null", "3", "\"x\"", "{}{}", "{'a':1}", "{\"op\":}", "{\"op\":\"ping\"} x", "{\"op\":3}",
		"{\"op\":\"\"}", "{\"op\":null}", "{\"op\":\"no such thing\"}", "{\"op\":\"ping\\u0000x\"}", "{\"op\":\"\xff\xfe\"}",
		"{\"op\":\"list\",\"names\":[1,null,{}]}", "{\"op\":\"list\",\"names\":[\"../x\"]}",
	};
	int fd = raw_connect();

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		put(fd, lines[i], strlen(lines[i]));
		put(fd, "\n", 1);
		if (!error_of(fd))
			fail_msg("\"%s\" was taken", lines[i]);
	}
	put(fd, "a\0b\n", 4);
	assert_int_equal(error_of(fd), -EINVAL);
	close(fd);
	server_still_answers();
}

static void nesting_and_length_are_bounded(void **state)
{
	size_t n = (1u << 20) + 100;
	char *text = malloc(n);
	int fd = raw_connect();

	(void)state;
	memset(text, '[', n);
	text[100] = '\n';
	put(fd, text, 101);
	assert_int_equal(error_of(fd), -EINVAL);
	memset(text, 'x', n);
	put(fd, text, n);
	assert_int_equal(error_of(fd), -EMSGSIZE);
	assert_null(get(fd)); /* where the next line begins is not known (C4) */
	close(fd);
	free(text);
	server_still_answers();
}

static const char *const ops[] = {
	"ping", "pool-info", "pool-check", "pool-dump", "pool-add", "pool-set", "flush", "checkpoint", "list", "create", "remove",
	"rename", "resize", "set", "lock", "unlock", "pointer-add", "pointer-set", "pointer-del", "snapshot", "rollback", "diff",
	"usage", "stop-if-unused", "server-add", "server-list", "server-remove",
};
static const char *const keys[] = {
	"volume", "to", "size", "grow", "shrink", "base", "readonly", "attrs", "locked", "holder", "mode", "opened_as", "mount",
	"server", "link", "snapshots", "snapshot", "a", "b", "names", "path", "thresholds", "policy", "discards", "quick", "force", "take",
};
static const char *const values[] = {
	"null", "true", "-1", "0", "1.5", "18446744073709551615", "99999999999999999999999", "\"\"", "\"v\"", "\"../../x\"", "\"rw\"",
	"\"nope\"", "[]", "[[]]", "[{}]", "{}", "{\"a\":{}}", "{\"a b\":\"\"}", "{\"k\":\"v\\n\"}", "[{\"volume\":\"v\",\"name\":\"v\"}]",
	"{\"kind\":\"vm\",\"qmp\":\"/q\"}", "[{\"volume\":\"nope\"}]", "{\"host\":\"x\",\"boot\":3}", "[1,2,3,4,5,6]", "[-1]",
};
#define N(a) (sizeof(a) / sizeof(a[0]))

/* Every operation with two members of every kind: no answer is wrong but none. */
static void values_of_any_type_are_survived(void **state)
{
	unsigned rounds = rig_scale(6000);
	int fd = raw_connect();

	(void)state;
	srand(rig_seed());
	for (unsigned i = 0; i < rounds; i++) {
		char line[512];
		struct json_object *o, *v;
		snprintf(line, sizeof(line), "{\"op\":\"%s\",\"test\":%s,\"%s\":%s,\"%s\":%s,\"volume\":%s}\n", ops[(unsigned)rand() % N(ops)],
			 rand() % 4 ? "true" : "false", keys[(unsigned)rand() % N(keys)], values[(unsigned)rand() % N(values)],
			 keys[(unsigned)rand() % N(keys)], values[(unsigned)rand() % N(values)], rand() % 2 ? "\"v\"" : values[(unsigned)rand() % N(values)]);
		put(fd, line, strlen(line));
		do {
			o = get(fd);
			if (!o)
				fail_msg("no answer to %s", line);
			bool more = json_object_object_get_ex(o, "progress", &v) || json_object_object_get_ex(o, "part", &v);
			json_object_put(o);
			if (!more)
				break;
		} while (true);
	}
	close(fd);
	server_still_answers();
}

static void half_a_line_and_a_lost_client_harm_nobody(void **state)
{
	int fd[40];

	(void)state;
	for (unsigned i = 0; i < N(fd); i++) {
		fd[i] = raw_connect();
		put(fd[i], "{\"op\":\"pool-ch", 14);
	}
	server_still_answers();
	for (unsigned i = 0; i < N(fd); i++)
		close(fd[i]);
	/* asks and goes */
	for (unsigned i = 0; i < 40; i++) {
		int one = raw_connect();
		put(one, "{\"op\":\"pool-check\"}\n{\"op\":\"list\"}\n", 35);
		close(one);
	}
	server_still_answers();
}

static void more_connections_than_there_may_be_get_an_error(void **state)
{
	struct vol_pool *client;
	int fd[70], refused = 0;

	(void)state;
	for (unsigned i = 0; i < N(fd); i++)
		fd[i] = raw_connect();
	for (unsigned i = 64; i < N(fd); i++)
		refused += error_of(fd[i]) == -EAGAIN;
	assert_int_equal(refused, N(fd) - 64);
	client = rig_open("t", 0);
	usleep(50000); /* so that it is refused before it has asked */
	assert_int_equal(rig_call(client, NULL, "{'op':'ping'}"), -EAGAIN);
	rig_close(client);
	for (unsigned i = 0; i < N(fd); i++)
		close(fd[i]);
	server_still_answers();
}

static void another_user_is_turned_away(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	if (geteuid())
		skip();
	/* As if the directory were open to all (C1). */
	assert_int_equal(chmod(rig_dir, 0755), 0);
	assert_int_equal(chmod(rig_path("run"), 0755), 0);
	char sock[128];
	snprintf(sock, sizeof(sock), "%s/run/t.ctl", rig_dir);
	assert_int_equal(chmod(sock, 0666), 0);
	pid = fork();
	if (!pid) {
		if (setuid(65534))
			_exit(9);
		_exit(error_of(raw_connect()) == -EPERM ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	server_still_answers();
}

static void a_server_in_use_does_not_stop(void **state)
{
	struct vol_pool *client = rig_open("t", 0);
	struct json_object *a;

	(void)state;
	assert_int_equal(rig_call(client, NULL, "{'op':'pointer-add','volume':'v','mode':'ro'}"), 0);
	assert_int_equal(rig_call(client, &a, "{'op':'stop-if-unused'}"), 0);
	assert_false(json_flag(a, "stopped"));
	json_object_put(a);
	assert_int_equal(stops, 0);
	assert_int_equal(rig_call(client, NULL, "{'op':'pointer-del','volume':'v','link':1}"), 0);
	assert_int_equal(rig_call(client, &a, "{'op':'stop-if-unused'}"), 0);
	assert_true(json_flag(a, "stopped"));
	json_object_put(a);
	assert_int_equal(stops, 1);
	rig_close(client);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(what_is_not_json_gets_an_error),
		T(nesting_and_length_are_bounded),
		T(values_of_any_type_are_survived),
		T(half_a_line_and_a_lost_client_harm_nobody),
		T(more_connections_than_there_may_be_get_an_error),
		T(another_user_is_turned_away),
		T(a_server_in_use_does_not_stop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
