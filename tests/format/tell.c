// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * The engine's view of a pool, in the words of `reader.py view`: pool, volumes,
 * their extents with addresses and contents, and the reference count of every
 * block.
 */
#include "images.h"

#include <inttypes.h>
#include <json-c/json.h>

#include "pool.h"

typedef struct json_object json;

static void set(json *o, const char *key, json *v)
{
	json_object_object_add(o, key, v);
}

static void set_u64(json *o, const char *key, uint64_t n)
{
	set(o, key, json_object_new_uint64(n));
}

static void set_str(json *o, const char *key, const char *s)
{
	set(o, key, json_object_new_string(s));
}

static void set_hex(json *o, const char *key, const uint8_t b[16])
{
	char text[33];
	unsigned i;

	for (i = 0; i < 16; i++)
		sprintf(text + 2 * i, "%02x", b[i]);
	set_str(o, key, text);
}

static void push_u64(json *a, uint64_t n)
{
	json_object_array_add(a, json_object_new_uint64(n));
}

static void push_address(json *a, vd_pblk_t p)
{
	char text[32];

	snprintf(text, sizeof(text), "%u:%" PRIu64, VD_PBLK_MEMBER(p), (uint64_t)VD_PBLK_BLOCK(p));
	json_object_array_add(a, json_object_new_string(text));
}

/* ---- contents ---------------------------------------------------------- */

/* The CRC-32 of zlib, which Python has: not the format's own sum. */
static uint32_t crc32_add(uint32_t crc, const uint8_t *p, size_t n)
{
	static uint32_t table[256];
	unsigned i, k;

	if (!table[1])
		for (i = 0; i < 256; i++)
			for (table[i] = i, k = 0; k < 8; k++)
				table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320u : 0);
	for (crc = ~crc; n; n--)
		crc = table[(crc ^ *p++) & 255] ^ crc >> 8;
	return ~crc;
}

/* Of [off, off + len) of the volume; null: it cannot be read. */
static json *sum(struct sim *sim, struct vd_volume *vol, uint64_t nbase, uint64_t off, uint64_t len)
{
	static uint8_t buf[64 * VD_BLOCK];
	uint32_t crc = 0;
	char text[12];
	uint64_t n;

	for (; len; off += n, len -= n) {
		n = vd_min(len, (uint64_t)sizeof(buf));
		if (io_read(sim, vol, nbase, off, buf, n, NULL))
			return NULL;
		crc = crc32_add(crc, buf, n);
	}
	snprintf(text, sizeof(text), "%08x", crc);
	return json_object_new_string(text);
}

/* ---- mappings ---------------------------------------------------------- */

struct run { uint64_t off, len; enum vd_ext_kind kind; vd_pblk_t p; };
struct telling {
	struct sim *sim;
	struct vd_volume *vol;
	uint64_t nbase;
	json *list;
	struct run last; /* told when the next one does not continue it */
};

static void tell_run(struct telling *t)
{
	static const char *const name[] = { "hole", "data", "zero", "base" };
	const struct run *r = &t->last;
	uint64_t len = r->len, end = t->nbase * SECTOR;
	json *a;

	if (!len)
		return;
	a = json_object_new_array();
	push_u64(a, r->off / VD_BLOCK);
	push_u64(a, len / VD_BLOCK);
	json_object_array_add(a, json_object_new_string(name[r->kind]));
	if (r->kind == VD_DATA)
		push_address(a, r->p);
	if (r->kind == VD_BASE) /* as far as there is one */
		len = r->off < end ? vd_min(len, end - r->off) : 0;
	if (r->kind == VD_DATA || r->kind == VD_BASE)
		json_object_array_add(a, sum(t->sim, t->vol, t->nbase, r->off, len));
	json_object_array_add(t->list, a);
}

static void add_run(struct telling *t, struct run r)
{
	struct run *last = &t->last;

	if (last->len && last->kind == r.kind && (r.kind != VD_DATA || last->p + last->len / VD_BLOCK == r.p)) {
		last->len += r.len;
		return;
	}
	tell_run(t);
	*last = r;
}

static json *extents(struct sim *sim, struct vd_volume *vol, const struct vd_volume_info *info)
{
	struct telling t = { .sim = sim, .vol = vol, .nbase = base_sectors(info->base), .list = json_object_new_array() };
	struct vd_extent_info e;
	struct vd_io io;
	uint64_t off, done;
	int r;

	for (off = 0; off < info->size; off += e.len) {
		r = vd_extent(vol, off, info->size - off, &e);
		if (r)
			die("vd_extent", r);
		if (e.kind != VD_DATA) {
			add_run(&t, (struct run){ off, e.len, e.kind, 0 });
			continue;
		}
		for (done = 0; done < e.len; done += io.bytes) {
			while ((r = vd_read_begin(vol, off + done, e.len - done, &io)) == -EWOULDBLOCK)
				if ((r = vd_io_wait(&io)))
					break;
			if (r)
				die("vd_read_begin", r);
			if (io.kind != VD_RUN_DATA)
				die("vd_read_begin and vd_extent differ", 0);
			vd_read_end(&io);
			add_run(&t, (struct run){ off + done, io.bytes, VD_DATA, io.pblk });
		}
	}
	tell_run(&t);
	return t.list;
}

/* ---- volumes and pool -------------------------------------------------- */

static json *holder(const struct vd_disk_holder *h)
{
	json *o = json_object_new_object();

	set_hex(o, "host", h->host);
	set_hex(o, "boot", h->boot);
	set_str(o, "hostname", h->hostname);
	set_str(o, "purpose", h->purpose);
	set_u64(o, "pid", le64_to_cpu(h->pid));
	set_u64(o, "since", le64_to_cpu(h->since));
	return o;
}

static json *pointers(const struct vd_volume_info *info)
{
	json *a = json_object_new_array(), *o;
	unsigned i;

	for (i = 0; i < info->npointers; i++) {
		const struct vd_disk_pointer *p = &info->pointer[i];

		o = json_object_new_object();
		set(o, "who", holder(&p->who));
		set_u64(o, "epoch", le64_to_cpu(p->epoch));
		set_u64(o, "mode", le32_to_cpu(p->mode));
		set_u64(o, "link", le32_to_cpu(p->link));
		set_str(o, "opened_as", p->opened_as);
		set_str(o, "mount", p->mount);
		set_str(o, "server", p->server);
		json_object_array_add(a, o);
	}
	return a;
}

static json *volume(struct sim *sim, struct vd_pool *pool, uint32_t id, const char *dir)
{
	json *o = json_object_new_object();
	struct vd_volume_info info;
	struct vd_volume *vol;
	uint32_t found;
	int r;

	r = vd_volume_info(pool, id, &info);
	if (r)
		die("vd_volume_info", r);
	r = vd_volume_find(pool, info.name, &found);
	if (r || found != id)
		die("vd_volume_find", r);
	if (dir && info.flags & VD_VOL_BASE)
		dump_base(base_sectors(info.base), dir);
	r = vd_volume_open(pool, id, &vol);
	if (r)
		die("vd_volume_open", r);
	set_u64(o, "id", info.id);
	set_str(o, "name", info.name);
	set_hex(o, "uuid", info.uuid);
	set_u64(o, "flags", info.flags);
	set_u64(o, "size", info.size);
	set_u64(o, "mapped", info.mapped);
	set_u64(o, "last_snapshot", info.last_snapshot);
	set_u64(o, "family", info.family);
	set_u64(o, "origin", info.origin);
	set_u64(o, "created", info.created);
	set_str(o, "base", info.base);
	set_str(o, "attrs", info.attrs);
	set(o, "lock", info.flags & VD_VOL_LOCKED ? holder(&info.lock) : NULL);
	set(o, "pointers", pointers(&info));
	set(o, "extents", extents(sim, vol, &info));
	vd_volume_close(vol);
	return o;
}

static void push_count(json *list, vd_pblk_t first, uint64_t len, uint32_t count)
{
	json *a = json_object_new_array();

	push_address(a, first);
	push_u64(a, len);
	push_u64(a, count);
	json_object_array_add(list, a);
}

/* Runs of equal counts above 0. */
static json *counts(struct vd_pool *pool)
{
	json *list = json_object_new_array();
	uint64_t b, n, blocks, begin;
	uint32_t count, last;
	uint8_t uuid[16];
	bool missing;
	unsigned m;
	int r;

	for (m = 0; !vd_pool_member(pool, m, uuid, &blocks, &missing); m++) {
		for (b = begin = last = 0; b < blocks; b += n) {
			vd_mutex_lock(&pool->ckpt_lock);
			r = vd_space_run(pool, VD_PBLK(m, b), blocks - b, &count, &n);
			vd_mutex_unlock(&pool->ckpt_lock);
			if (r)
				die("vd_space_run", r);
			if (count == last)
				continue;
			if (last)
				push_count(list, VD_PBLK(m, begin), b - begin, last);
			begin = b;
			last = count;
		}
		if (last)
			push_count(list, VD_PBLK(m, begin), blocks - begin, last);
	}
	return list;
}

static json *pool_facts(struct vd_pool *pool)
{
	json *o = json_object_new_object(), *list = json_object_new_array(), *e;
	struct vd_pool_info info;
	uint64_t blocks;
	uint8_t uuid[16];
	bool missing;
	unsigned m;

	vd_pool_info(pool, &info);
	set_str(o, "name", info.name);
	set_hex(o, "uuid", info.uuid);
	set_u64(o, "generation", info.generation);
	set_u64(o, "incarnation", info.incarnation);
	set_u64(o, "epoch", info.epoch);
	set_u64(o, "seq", info.seq);
	set_u64(o, "sector_size", info.sector_size);
	set_u64(o, "created", info.created);
	set_u64(o, "policy", info.policy.flags);
	for (m = 0; m < 4; m++)
		push_u64(list, info.policy.threshold[m]);
	set(o, "thresholds", list);
	set_u64(o, "blocks", info.total_blocks);
	set_u64(o, "meta_blocks", info.metadata_blocks);
	set_u64(o, "reserve_blocks", info.reserve_blocks);
	set_u64(o, "journal_blocks", info.journal_blocks);
	list = json_object_new_array();
	for (m = 0; !vd_pool_member(pool, m, uuid, &blocks, &missing); m++) {
		e = json_object_new_object();
		set_hex(e, "uuid", uuid);
		set_u64(e, "blocks", blocks);
		set(e, "missing", json_object_new_boolean(missing));
		json_object_array_add(list, e);
	}
	set(o, "members", list);
	return o;
}

/* Left out where there are none: earlier versions knew of none. */
static void servers(struct vd_pool *pool, json *o)
{
	json *list = NULL, *e;
	struct vd_server_info info;
	uint32_t id, found;
	int r;

	for (id = 1; !(r = vd_server_next(pool, &id)); id++) {
		r = vd_server_info(pool, id, &info);
		if (r)
			die("vd_server_info", r);
		r = vd_server_find(pool, info.name, &found);
		if (r || found != id)
			die("vd_server_find", r);
		e = json_object_new_object();
		set_u64(e, "id", info.id);
		set_str(e, "name", info.name);
		set_hex(e, "uuid", info.uuid);
		set_u64(e, "created", info.created);
		set_str(e, "attrs", info.attrs);
		if (!list)
			set(o, "servers", list = json_object_new_array());
		json_object_array_add(list, e);
	}
	if (r != -ENOENT)
		die("vd_server_next", r);
}

void tell_pool(struct sim *sim, const char *dir)
{
	json *o = json_object_new_object(), *list = json_object_new_array();
	struct vd_pool *pool;
	struct vd_host host;
	uint64_t written, errors, blocks;
	uint8_t uuid[16];
	bool missing;
	unsigned m;
	uint32_t id;
	int r;

	written = sim->calls[SIM_WRITE] + sim->calls[SIM_FLUSH];
	errors = sim->errors_logged;
	sim_host(sim, &host);
	r = vd_pool_open(&host, VD_OPEN_READONLY, NULL, &pool);
	if (r)
		die("vd_pool_open", r);
	if (sim->errors_logged != errors)
		die("the pool was opened, but is damaged", 0);
	for (m = 0; !vd_pool_member(pool, m, uuid, &blocks, &missing); m++) /* a host's duty, see vd.h */
		sim->member[m]->missing |= missing;
	set(o, "pool", pool_facts(pool));
	for (id = 1; !(r = vd_volume_next(pool, &id, NULL)); id++)
		json_object_array_add(list, volume(sim, pool, id, dir));
	if (r != -ENOENT)
		die("vd_volume_next", r);
	set(o, "volumes", list);
	servers(pool, o);
	set(o, "counts", counts(pool));
	vd_pool_abandon(pool);
	if (sim->calls[SIM_WRITE] + sim->calls[SIM_FLUSH] != written)
		die("a pool opened read-only was written to", 0);
	printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
}
