// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Several threads on one volume, each with sectors of its own that share 4 KiB
 * blocks with the others', while another takes, compares and removes snapshots
 * through the control socket.
 */
#include "volrig.h"

#define THREADS 4u
#define SECTORS 2048u /* 1 MiB */
#define SIZE (SECTORS * 512u)

static struct vol_pool *pool;
static struct vol_volume *vol;
static unsigned rounds;
static int over; /* atomic: threads that have ended */

struct worker {
	pthread_t thread;
	unsigned index, seed;
	uint8_t *ref; /* of its own sectors */
	char failure[128];
};

static void step(struct worker *w, unsigned n)
{
	unsigned s = (unsigned)rand_r(&w->seed) % (SECTORS / THREADS) * THREADS + w->index;
	uint8_t buf[512];
	int r = 0;

	switch (rand_r(&w->seed) % 8) {
	case 0 ... 3:
		memset(buf, (int)(n % 255) + 1, sizeof(buf));
		r = vol_pwrite(vol, buf, 512, s * 512u, 0);
		memcpy(w->ref + s * 512u, buf, 512);
		break;
	case 4:
		r = vol_zero(vol, s * 512u, 512, 0);
		memset(w->ref + s * 512u, 0, 512);
		break;
	case 5:
		if (n % 8 == 0)
			r = vol_flush(vol);
		break;
	default:
		r = vol_pread(vol, buf, 512, s * 512u);
		if (!r && memcmp(buf, w->ref + s * 512u, 512))
			snprintf(w->failure, sizeof(w->failure), "step %u: sector %u is %u, wanted %u", n, s, buf[0], w->ref[s * 512u]);
	}
	if (r)
		snprintf(w->failure, sizeof(w->failure), "step %u: %s", n, vol_strerror(r));
}

static void *work(void *arg)
{
	struct worker *w = arg;

	for (unsigned n = 0; n < rounds && !w->failure[0]; n++)
		step(w, n);
	__atomic_add_fetch(&over, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static int no_range(void *arg, struct json_object *part)
{
	(void)part;
	++*(unsigned *)arg;
	return 0;
}

/* The command's side: its own handle, through the socket. */
static void command(struct vol_pool *client, unsigned n)
{
	struct json_object *q = json_object_new_object();
	char name[32];
	unsigned parts = 0;

	snprintf(name, sizeof(name), "s%u", n);
	if (rig_call(client, NULL, "{'op':'snapshot','snapshots':[{'volume':'v','name':'%s'}]}", name))
		fail_msg("%s", vol_error(client));
	json_set_str(q, "op", "diff");
	json_set_str(q, "a", "v");
	json_set_str(q, "b", name);
	if (vol_call(client, q, no_range, &parts, NULL))
		fail_msg("%s", vol_error(client));
	json_object_put(q);
	if (n >= 3 && rig_call(client, NULL, "{'op':'remove','volume':'s%u'}", n - 3))
		fail_msg("%s", vol_error(client));
	if (n % 8 == 0)
		rig_ok(client, "{'op':'checkpoint'}");
}

static void threads_that_share_blocks_keep_their_sectors(void **state)
{
	struct vol_server_hooks hooks = { 0 };
	struct vol_server *server;
	struct worker w[THREADS] = { 0 };
	struct vol_pool *client;
	struct json_object *result;
	uint8_t *all = calloc(1, SIZE);
	unsigned seed = rig_seed();

	(void)state;
	rounds = rig_scale(20000);
	rig_pool("t", 2, 128u << 20);
	pool = rig_open("t", VOL_OFFLINE);
	rig_ok(pool, "{'op':'create','volume':'v','size':1048576}");
	if (vol_volume_open(pool, "v", 0, false, &vol) || vol_server_start(pool, &hooks, &server))
		fail_msg("%s", vol_error(NULL));
	client = rig_open("t", 0);
	assert_true(vol_pool_is_remote(client));
	for (unsigned i = 0; i < THREADS; i++) {
		w[i].index = i;
		w[i].seed = seed + i;
		w[i].ref = calloc(1, SIZE);
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	}
	for (unsigned n = 0; __atomic_load_n(&over, __ATOMIC_SEQ_CST) < (int)THREADS; n++)
		command(client, n);
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(w[i].thread, NULL);
		if (w[i].failure[0])
			fail_msg("thread %u, %s", i, w[i].failure);
	}
	assert_int_equal(vol_pread(vol, all, SIZE, 0), 0);
	for (unsigned s = 0; s < SECTORS; s++)
		assert_memory_equal(all + s * 512u, w[s % THREADS].ref + s * 512u, 512);
	assert_int_equal(rig_call(client, &result, "{'op':'pool-check'}"), 0);
	assert_int_equal(json_u64(result, "faults"), 0);
	json_object_put(result);
	rig_close(client);
	vol_volume_close(vol);
	vol_server_stop(server);
	rig_close(pool);
	for (unsigned i = 0; i < THREADS; i++)
		free(w[i].ref);
	free(all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(threads_that_share_blocks_keep_their_sectors, rig_setup, rig_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
