// SPDX-License-Identifier: LGPL-2.1-or-later
/* Changes of a pool: by the engine here, or by messages to the kernel's. change.h tells. */
#include "change.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "dm.h"

/* ---- messages -------------------------------------------------------------- */

/* A message being written: its words are set apart by blanks, a volume is #ID. */
struct message { FILE *f; char *text; size_t size; };

__attribute__((format(printf, 2, 3)))
static int begin(struct message *m, const char *fmt, ...)
{
	va_list ap;

	m->text = NULL;
	m->f = open_memstream(&m->text, &m->size);
	if (!m->f)
		return -ENOMEM;
	va_start(ap, fmt);
	vfprintf(m->f, fmt, ap);
	va_end(ap);
	return 0;
}

/* " KEY=VALUE", where blanks are part of the value; to the kernel byte 0xa0 is one, which
 * UTF-8 has inside of letters. */
static void add(struct message *m, const char *key, const char *value, size_t size)
{
	fprintf(m->f, " %s=", key);
	for (size_t i = 0; i < size && value[i]; i++)
		fprintf(m->f, strchr(" \t\n\v\f\r\\\xa0", value[i]) ? "\\%c" : "%c", value[i]);
}

static void add_holder(struct message *m, const struct vd_disk_holder *who)
{
	char host[VOL_UUID_TEXT], boot[VOL_UUID_TEXT];

	vol_uuid_text(who->host, host);
	vol_uuid_text(who->boot, boot);
	fprintf(m->f, " host=%s boot=%s pid=%llu since=%llu", host, boot, (unsigned long long)le64_to_cpu(who->pid),
		(unsigned long long)le64_to_cpu(who->since));
	add(m, "hostname", who->hostname, sizeof(who->hostname));
	add(m, "purpose", who->purpose, sizeof(who->purpose));
}

static void add_pointer(struct message *m, const struct vd_disk_pointer *ptr)
{
	add_holder(m, &ptr->who);
	fprintf(m->f, " epoch=%llu", (unsigned long long)le64_to_cpu(ptr->epoch));
	add(m, "opened_as", ptr->opened_as, sizeof(ptr->opened_as));
	add(m, "mount", ptr->mount, sizeof(ptr->mount));
	add(m, "server", ptr->server, sizeof(ptr->server));
}

static int end(struct vol_pool *p, struct message *m, char *answer, size_t size)
{
	int r = fclose(m->f) ? -ENOMEM : 0;

	if (!r)
		r = vol_dm_message(p->uuid, m->text, answer, size);
	free(m->text);
	return r;
}

/* One that has no answer. */
__attribute__((format(printf, 2, 3)))
static int tell(struct vol_pool *p, const char *fmt, ...)
{
	char text[2 * VOL_NAME_SIZE];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return vol_dm_message(p->uuid, text, NULL, 0);
}

/* No device, or one without a table, which answers nothing: the pool is not open there (any more). */
static int ask(struct vol_pool *p, const char *text, char *answer, size_t size)
{
	int r;

	*answer = 0;
	r = vol_dm_message(p->uuid, text, answer, size);
	return r == -ENXIO || (!r && !*answer) ? -ESTALE : r;
}

static int end_with_number(struct vol_pool *p, struct message *m, uint32_t *n)
{
	char answer[32];
	int r = fclose(m->f) ? -ENOMEM : ask(p, m->text, answer, sizeof(answer));

	free(m->text);
	return r ? r : sscanf(answer, "%u", n) == 1 ? 0 : -EPROTO;
}

/* ---- records --------------------------------------------------------------- */

#define RECORD_MAX 16384u /* the longest there can be has half of that */

/* An answer in lines of words, KEY=VALUE but the first.  end: what stood behind the last word. */
struct answer { char *at, end; };

static bool next_line(struct answer *a)
{
	bool more = a->end && *a->at;

	a->end = ' ';
	return more;
}

/* Unquoted, in place. */
static char *next_word(struct answer *a)
{
	char *word = a->at, *to = word;

	if (a->end != ' ')
		return NULL;
	for (; *a->at && *a->at != ' ' && *a->at != '\n'; a->at++) {
		if (*a->at == '\\' && a->at[1])
			a->at++;
		*to++ = *a->at;
	}
	a->end = *a->at;
	a->at += a->end != 0;
	*to = 0;
	return word;
}

struct field {
	const char *key;
	enum { ID, TEXT, U32, U64, LE32, LE64 } kind;
	void *to;
	size_t size; /* of TEXT, which need not end in NUL */
};

static int take(const struct field *f, char *word)
{
	char *value = strchr(word, '='), *end;
	unsigned long long n;

	if (!value)
		return -EPROTO;
	*value++ = 0;
	while (f->key && strcmp(f->key, word))
		f++;
	if (!f->key)
		return 0; /* a later module tells more */
	if (f->kind == ID)
		return vol_uuid_parse(value, f->to) ? -EPROTO : 0;
	if (f->kind == TEXT) {
		if (strlen(value) > f->size)
			return -EPROTO;
		memcpy(f->to, value, strlen(value));
		return 0;
	}
	n = strtoull(value, &end, 10);
	if (end == value || *end)
		return -EPROTO;
	/* On disk records are packed: not every one is where its kind may be stored. */
	if (f->kind == U32 || f->kind == LE32) {
		uint32_t v = f->kind == U32 ? (uint32_t)n : cpu_to_le32((uint32_t)n);

		memcpy(f->to, &v, sizeof(v));
	} else {
		uint64_t v = f->kind == U64 ? n : cpu_to_le64(n);

		memcpy(f->to, &v, sizeof(v));
	}
	return 0;
}

static int take_line(const struct field *f, struct answer *a)
{
	char *word;
	int r = 0;

	while (!r && (word = next_word(a)))
		r = take(f, word);
	return r;
}

#define HOLDER(w) { "host", ID, (w)->host, 0 }, { "boot", ID, (w)->boot, 0 }, { "pid", LE64, &(w)->pid, 0 }, \
		{ "since", LE64, &(w)->since, 0 }, { "hostname", TEXT, (w)->hostname, sizeof((w)->hostname) }, \
		{ "purpose", TEXT, (w)->purpose, sizeof((w)->purpose) }

static int take_volume(struct answer *a, struct vd_volume_info *i)
{
	const struct field fields[] = {
		{ "id", U32, &i->id, 0 }, { "flags", U32, &i->flags, 0 }, { "uuid", ID, i->uuid, 0 }, { "size", U64, &i->size, 0 },
		{ "mapped", U64, &i->mapped, 0 }, { "reserved", U64, &i->reserved, 0 }, { "unused", U64, &i->unused, 0 },
		{ "origin", U32, &i->origin, 0 }, { "family", U64, &i->family, 0 }, { "last_snapshot", U64, &i->last_snapshot, 0 },
		{ "created", U64, &i->created, 0 }, { "blank", U32, &i->blank, 0 }, { "name", TEXT, i->name, sizeof(i->name) - 1 },
		{ "base", TEXT, i->base, sizeof(i->base) }, { "attrs", TEXT, i->attrs, sizeof(i->attrs) - 1 }, { NULL, 0, NULL, 0 },
	};

	return take_line(fields, a);
}

static int take_lock(struct answer *a, struct vd_volume_info *i)
{
	const struct field fields[] = { HOLDER(&i->lock), { NULL, 0, NULL, 0 } };

	return take_line(fields, a);
}

static int take_pointer(struct answer *a, struct vd_volume_info *i)
{
	struct vd_disk_pointer *p = &i->pointer[i->npointers];
	const struct field fields[] = {
		{ "link", LE32, &p->link, 0 }, { "mode", LE32, &p->mode, 0 }, { "epoch", LE64, &p->epoch, 0 }, HOLDER(&p->who),
		{ "opened_as", TEXT, p->opened_as, sizeof(p->opened_as) }, { "mount", TEXT, p->mount, sizeof(p->mount) },
		{ "server", TEXT, p->server, sizeof(p->server) }, { NULL, 0, NULL, 0 },
	};

	if (i->npointers == VD_POINTERS_MAX)
		return -EPROTO;
	i->npointers++;
	return take_line(fields, a);
}

int change_take_record(char *text, struct vd_volume_info *info, uint32_t *mode, uint64_t *epoch)
{
	const struct field pool[] = { { "mode", U32, mode, 0 }, { "epoch", U64, epoch, 0 }, { NULL, 0, NULL, 0 } };
	struct answer a = { text, '\n' };
	bool any = false;
	int r = 0;

	memset(info, 0, sizeof(*info));
	while (!r && next_line(&a)) {
		const char *what = next_word(&a);

		if (!what) {
			r = -EPROTO;
		} else if (!strcmp(what, "pool")) {
			r = take_line(pool, &a);
		} else if (!strcmp(what, "volume")) {
			any = true;
			r = take_volume(&a, info);
		} else if (!strcmp(what, "lock")) {
			r = take_lock(&a, info);
		} else if (!strcmp(what, "pointer")) {
			r = take_pointer(&a, info);
		} else {
			r = -EPROTO;
		}
	}
	return r ? r : any ? 0 : -ENOENT;
}

/* Of the kernel's pool, whose mode comes with it. */
static int ask_record(struct vol_pool *p, const char *request, struct vd_volume_info *info)
{
	uint32_t mode = VD_MODE_FAILED;
	char answer[RECORD_MAX];
	int r = ask(p, request, answer, sizeof(answer));

	if (r)
		return r;
	r = change_take_record(answer, info, &mode, &p->kernel_epoch);
	p->kernel_mode = mode;
	return r;
}

/* The module that is loaded is from before that message: what it has is in a view, which is there now. */
static bool older(struct vol_pool *p, int r)
{
	return r == -EINVAL && !vol_pool_view(p);
}

int change_find(struct vol_pool *p, const char *name, uint32_t *id, struct vd_volume_info *info)
{
	struct vd_volume_info *own = NULL;
	char request[VOL_NAME_SIZE + 16];
	int r;

	if (!p->kernel || p->viewed) {
		r = vd_volume_find(p->engine, name, id);
		return r || !info ? r : vd_volume_info(p->engine, *id, info);
	}
	if (!info)
		info = own = malloc(sizeof(*own));
	if (!info)
		return -ENOMEM;
	snprintf(request, sizeof(request), "record %s", name);
	r = ask_record(p, request, info);
	if (!r)
		*id = info->id;
	free(own);
	return older(p, r) ? change_find(p, name, id, own ? NULL : info) : r;
}

int change_info(struct vol_pool *p, uint32_t id, struct vd_volume_info *info)
{
	char request[32];
	int r;

	if (!p->kernel || p->viewed)
		return vd_volume_info(p->engine, id, info);
	snprintf(request, sizeof(request), "record #%u", id);
	r = ask_record(p, request, info);
	return older(p, r) ? vd_volume_info(p->engine, id, info) : r;
}

/* ---- changes --------------------------------------------------------------- */

void change_state(struct vol_pool *p, struct vd_pool_info *info)
{
	vd_pool_info(p->engine, info);
	if (p->kernel)
		info->mode = p->kernel_mode;
	else if (p->flags & VOL_TEST && info->mode == VD_MODE_READONLY)
		info->mode = VD_MODE_RW; /* as it would be: else opening it had been refused */
}

enum vd_pool_mode change_mode(struct vol_pool *p, uint64_t *epoch)
{
	struct vd_pool_info *info;
	enum vd_pool_mode mode;

	*epoch = p->kernel_epoch;
	if (p->kernel)
		return p->kernel_mode;
	info = malloc(sizeof(*info));
	if (!info)
		return VD_MODE_FAILED;
	change_state(p, info);
	mode = info->mode;
	*epoch = info->epoch;
	free(info);
	return mode;
}

int change_flush(struct vol_pool *p)
{
	return p->kernel ? change_checkpoint(p) : vd_flush(p->engine);
}

int change_checkpoint(struct vol_pool *p)
{
	return p->kernel ? tell(p, "checkpoint") : vd_checkpoint(p->engine);
}

int change_pool_set(struct vol_pool *p, const struct vd_pool_policy *was, const struct vd_pool_policy *policy)
{
	const uint32_t *t = policy->threshold;
	const char *discards = !((was->flags ^ policy->flags) & VD_POLICY_NO_DISCARD) ? "" : /* a module of before knows no such key */
			       policy->flags & VD_POLICY_NO_DISCARD ? " discards=nopassdown" : " discards=passdown";

	return p->kernel ? tell(p, "pool_set policy=%s%s thresholds=%u,%u,%u,%u grow_by=%llu grow_to=%llu",
				policy->flags & VD_POLICY_ERROR_IF_FULL ? "error" : "queue", discards, t[0], t[1], t[2], t[3],
				(unsigned long long)policy->grow_by, (unsigned long long)policy->grow_to) :
			   vd_pool_set(p->engine, policy);
}

int change_pool_grow(struct vol_pool *p, unsigned m, uint64_t blocks)
{
	return p->kernel ? tell(p, "grow %u", m) : vd_pool_grow(p->engine, m, blocks);
}

int change_create(struct vol_pool *p, const struct vd_volume_spec *spec, uint32_t *id)
{
	char uuid[VOL_UUID_TEXT];
	struct message m;
	int r;

	if (!p->kernel)
		return vd_volume_create(p->engine, spec, id);
	vol_uuid_text(spec->uuid, uuid);
	r = begin(&m, "create %s %llu uuid=%s readonly=%d locked=%d reserve=%llu", spec->name, (unsigned long long)spec->size >> 9, uuid,
		  !!(spec->flags & VD_VOL_READONLY), !!(spec->flags & VD_VOL_LOCKED), (unsigned long long)spec->reserved);
	if (r)
		return r;
	if (spec->flags & VD_VOL_LOCKED)
		add_holder(&m, &spec->lock);
	if (spec->base)
		add(&m, "base", spec->base, SIZE_MAX);
	if (spec->attrs)
		add(&m, "attrs", spec->attrs, SIZE_MAX);
	return end_with_number(p, &m, id);
}

int change_delete(struct vol_pool *p, uint32_t id)
{
	return p->kernel ? tell(p, "delete #%u", id) : vd_volume_delete(p->engine, id);
}

int change_rename(struct vol_pool *p, uint32_t id, const char *name)
{
	return p->kernel ? tell(p, "rename #%u %s", id, name) : vd_volume_rename(p->engine, id, name);
}

int change_resize(struct vol_pool *p, uint32_t id, uint64_t size)
{
	return p->kernel ? tell(p, "resize #%u %llu", id, (unsigned long long)size >> 9) : vd_volume_resize(p->engine, id, size);
}

int change_reserve(struct vol_pool *p, uint32_t id, uint64_t blocks)
{
	return p->kernel ? tell(p, "reserve #%u %llu", id, (unsigned long long)blocks) : vd_volume_reserve(p->engine, id, blocks);
}

int change_set_flags(struct vol_pool *p, uint32_t id, uint32_t set, uint32_t clear)
{
	if (!p->kernel)
		return vd_volume_set_flags(p->engine, id, set, clear);
	return (set ^ clear) == VD_VOL_READONLY ? tell(p, "set #%u readonly=%d", id, set != 0) : -EOPNOTSUPP;
}

int change_set_attrs(struct vol_pool *p, uint32_t id, const char *attrs)
{
	struct message m;
	int r;

	if (!p->kernel)
		return vd_volume_set_attrs(p->engine, id, attrs);
	r = begin(&m, "set #%u", id);
	if (r)
		return r;
	add(&m, "attrs", attrs, SIZE_MAX);
	return end(p, &m, NULL, 0);
}

int change_lock(struct vol_pool *p, uint32_t id, const struct vd_disk_holder *who)
{
	struct message m;
	int r;

	if (!p->kernel)
		return vd_volume_lock(p->engine, id, who);
	r = begin(&m, "lock #%u", id);
	if (r)
		return r;
	add_holder(&m, who);
	return end(p, &m, NULL, 0);
}

int change_unlock(struct vol_pool *p, uint32_t id)
{
	return p->kernel ? tell(p, "unlock #%u", id) : vd_volume_unlock(p->engine, id);
}

int change_pointer_add(struct vol_pool *p, uint32_t id, const struct vd_disk_pointer *ptr, uint32_t *link)
{
	struct message m;
	int r;

	if (!p->kernel)
		return vd_volume_pointer_add(p->engine, id, ptr, link);
	r = begin(&m, "pointer_add #%u %s", id, le32_to_cpu(ptr->mode) ? "rw" : "ro");
	if (r)
		return r;
	add_pointer(&m, ptr);
	return end_with_number(p, &m, link);
}

int change_pointer_set(struct vol_pool *p, uint32_t id, uint32_t link, const struct vd_disk_pointer *ptr)
{
	struct message m;
	int r;

	if (!p->kernel)
		return vd_volume_pointer_set(p->engine, id, link, ptr);
	r = begin(&m, "pointer_set #%u %u", id, link);
	if (r)
		return r;
	add_pointer(&m, ptr);
	return end(p, &m, NULL, 0);
}

int change_pointer_del(struct vol_pool *p, uint32_t id, uint32_t link)
{
	return p->kernel ? tell(p, "pointer_del #%u %u", id, link) : vd_volume_pointer_del(p->engine, id, link);
}

int change_server_add(struct vol_pool *p, const char *name, const uint8_t uuid[16], const char *attrs, uint32_t *id)
{
	char text[VOL_UUID_TEXT];
	struct message m;
	int r;

	if (!p->kernel)
		return vd_server_add(p->engine, name, uuid, attrs, id);
	vol_uuid_text(uuid, text);
	r = begin(&m, "server_add %s uuid=%s", name, text);
	if (r)
		return r;
	add(&m, "attrs", attrs, SIZE_MAX);
	return end_with_number(p, &m, id);
}

int change_server_delete(struct vol_pool *p, uint32_t id, const char *name)
{
	return p->kernel ? tell(p, "server_del %s", name) : vd_server_delete(p->engine, id);
}

int change_snapshot(struct vol_pool *p, struct vd_snap *snap, unsigned n)
{
	char uuid[VOL_UUID_TEXT], answer[16 * 256] = "", *at = answer;
	struct message m;
	int r;

	if (!p->kernel)
		return vd_snapshot(p->engine, snap, n);
	r = begin(&m, "snapshot %s", snap[0].flags & VD_VOL_READONLY ? "ro" : "rw");
	if (r)
		return r;
	for (unsigned i = 0; i < n; i++) {
		vol_uuid_text(snap[i].uuid, uuid);
		fprintf(m.f, " %s #%u %s", snap[i].name, snap[i].origin, uuid);
	}
	r = end(p, &m, answer, sizeof(answer));
	for (unsigned i = 0; i < n && !r; i++)
		snap[i].id = (uint32_t)strtoul(at, &at, 10);
	return r;
}

int change_rollback(struct vol_pool *p, uint32_t id, uint32_t snap)
{
	return p->kernel ? tell(p, "rollback #%u #%u", id, snap) : vd_rollback(p->engine, id, snap);
}
