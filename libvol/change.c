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

static int end_with_number(struct vol_pool *p, struct message *m, uint32_t *n)
{
	char answer[32] = "";
	int r = end(p, m, answer, sizeof(answer));

	return r ? r : sscanf(answer, "%u", n) == 1 ? 0 : -EPROTO;
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

int change_flush(struct vol_pool *p)
{
	return p->kernel ? change_checkpoint(p) : vd_flush(p->engine);
}

int change_checkpoint(struct vol_pool *p)
{
	return p->kernel ? tell(p, "checkpoint") : vd_checkpoint(p->engine);
}

int change_pool_set(struct vol_pool *p, const struct vd_pool_policy *policy)
{
	const uint32_t *t = policy->threshold;

	return p->kernel ? tell(p, "pool_set policy=%s thresholds=%u,%u,%u,%u grow_by=%llu grow_to=%llu",
				policy->flags & VD_POLICY_ERROR_IF_FULL ? "error" : "queue", t[0], t[1], t[2], t[3],
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
