// SPDX-License-Identifier: GPL-2.0-only
/*
 * Messages about volumes' records: what libvol asks of a pool that the kernel has open.
 * README.md lists them.
 *
 * A volume is named by its name, or by #ID, which stays the same when it is renamed.
 * What else there is comes as KEY=VALUE.  A key that is not known is refused: who sent
 * it would take for done what was not.
 */
#include <linux/kernel.h>
#include <linux/slab.h>

#include "dm-vd.h"

static bool known_keys(unsigned int argc, char **argv)
{
	static const char *const keys[] = {
		"uuid", "readonly", "locked", "reserve", "attrs", "epoch", "opened_as", "mount", "server",
		"host", "boot", "hostname", "purpose", "pid", "since",
	};
	unsigned int i;

	for (; argc; argc--, argv++) {
		const char *end = strchr(*argv, '=');

		for (i = 0; end && i < ARRAY_SIZE(keys); i++)
			if (strlen(keys[i]) == end - *argv && !strncmp(*argv, keys[i], end - *argv))
				break;
		if (!end || i == ARRAY_SIZE(keys))
			return false;
	}
	return true;
}

static const char *value(unsigned int argc, char **argv, const char *key)
{
	size_t n = strlen(key);

	for (; argc; argc--, argv++)
		if (!strncmp(*argv, key, n) && (*argv)[n] == '=')
			return *argv + n + 1;
	return NULL;
}

/* These leave *out as it is when the key is absent. */
static int number(unsigned int argc, char **argv, const char *key, u64 *out)
{
	const char *text = value(argc, argv, key);

	return text ? kstrtou64(text, 10, out) : 0;
}

static int field(unsigned int argc, char **argv, const char *key, char *out, size_t size)
{
	const char *text = value(argc, argv, key);

	if (!text)
		return 0;
	if (strlen(text) >= size)
		return -EINVAL;
	memset(out, 0, size);
	memcpy(out, text, strlen(text));
	return 0;
}

static int id(unsigned int argc, char **argv, const char *key, uint8_t out[16])
{
	const char *text = value(argc, argv, key);

	return text ? vdk_parse_id(text, out) : 0;
}

static int holder(unsigned int argc, char **argv, struct vd_disk_holder *who)
{
	u64 pid = le64_to_cpu(who->pid), since = le64_to_cpu(who->since);
	int r;

	r = id(argc, argv, "host", who->host);
	if (!r)
		r = id(argc, argv, "boot", who->boot);
	if (!r)
		r = field(argc, argv, "hostname", who->hostname, sizeof(who->hostname));
	if (!r)
		r = field(argc, argv, "purpose", who->purpose, sizeof(who->purpose));
	if (!r)
		r = number(argc, argv, "pid", &pid);
	if (!r)
		r = number(argc, argv, "since", &since);
	who->pid = cpu_to_le64(pid);
	who->since = cpu_to_le64(since);
	return r;
}

static int pointer(unsigned int argc, char **argv, struct vd_disk_pointer *ptr)
{
	u64 epoch = le64_to_cpu(ptr->epoch);
	int r;

	r = holder(argc, argv, &ptr->who);
	if (!r)
		r = number(argc, argv, "epoch", &epoch);
	if (!r)
		r = field(argc, argv, "opened_as", ptr->opened_as, sizeof(ptr->opened_as));
	if (!r)
		r = field(argc, argv, "mount", ptr->mount, sizeof(ptr->mount));
	if (!r)
		r = field(argc, argv, "server", ptr->server, sizeof(ptr->server));
	ptr->epoch = cpu_to_le64(epoch);
	return r;
}

static int answer(char *result, unsigned int maxlen, uint32_t n)
{
	unsigned int sz = 0;

	DMEMIT("%u", n);
	return 1; /* there is one */
}

/* ---- the messages: argv[0] is the volume -------------------------------- */

/* create NAME SECTORS [KEY=VALUE]... */
static int create(struct vdk_pool *p, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	struct vd_volume_spec *spec = kzalloc(sizeof(*spec), GFP_KERNEL);
	u64 sectors, readonly = 0, locked = 0;
	uint32_t made;
	int r;

	if (!spec)
		return -ENOMEM;
	spec->name = argv[0];
	spec->attrs = value(argc, argv, "attrs");
	generate_random_uuid(spec->uuid);
	r = kstrtou64(argv[1], 10, &sectors);
	if (!r && sectors >> (63 - SECTOR_SHIFT))
		r = -EINVAL;
	spec->size = sectors << SECTOR_SHIFT;
	if (!r)
		r = id(argc, argv, "uuid", spec->uuid);
	if (!r)
		r = number(argc, argv, "readonly", &readonly);
	if (!r)
		r = number(argc, argv, "locked", &locked);
	if (!r)
		r = number(argc, argv, "reserve", &spec->reserved);
	if (!r)
		r = holder(argc, argv, &spec->lock);
	spec->flags = (readonly ? VD_VOL_READONLY : 0) | (locked ? VD_VOL_LOCKED : 0);
	if (!r)
		r = vd_volume_create(p->engine, spec, &made);
	kfree(spec);
	return r ? r : answer(result, maxlen, made);
}

/* snapshot ro|rw {NAME ORIGIN UUID}...: all at one instant; answers their ids */
static int snapshot(struct vdk_pool *p, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	unsigned int i, n = (argc - 1) / 3, sz = 0;
	struct vd_snap *snap;
	int r = 0;

	if ((argc - 1) % 3 || (strcmp(argv[0], "ro") && strcmp(argv[0], "rw")))
		return -EINVAL;
	snap = kvcalloc(n, sizeof(*snap), GFP_KERNEL);
	if (!snap)
		return -ENOMEM;
	for (i = 0; i < n && !r; i++) {
		snap[i].name = argv[1 + 3 * i];
		snap[i].flags = argv[0][1] == 'o' ? VD_VOL_READONLY : 0;
		r = vdk_find_volume(p, argv[2 + 3 * i], &snap[i].origin);
		if (!r)
			r = vdk_parse_id(argv[3 + 3 * i], snap[i].uuid);
	}
	if (!r)
		r = vd_snapshot(p->engine, snap, n);
	for (i = 0; i < n && !r; i++)
		DMEMIT("%s%u", i ? " " : "", snap[i].id);
	kvfree(snap);
	return r ? r : 1;
}

static int rollback(struct vdk_pool *p, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	uint32_t vol, from;
	int r = vdk_find_volume(p, argv[0], &vol);

	if (!r)
		r = vdk_find_volume(p, argv[1], &from);
	return r ? r : vd_rollback(p->engine, vol, from);
}

static int resize(struct vdk_pool *p, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	uint32_t vol;
	u64 sectors;
	int r = vdk_find_volume(p, argv[0], &vol);

	if (!r)
		r = kstrtou64(argv[1], 10, &sectors);
	if (!r && sectors >> (63 - SECTOR_SHIFT))
		r = -EINVAL;
	return r ? r : vd_volume_resize(p->engine, vol, sectors << SECTOR_SHIFT);
}

/* reserve NAME BLOCKS */
static int reserve(struct vdk_pool *p, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	uint32_t vol;
	u64 blocks;
	int r = vdk_find_volume(p, argv[0], &vol);

	if (!r)
		r = kstrtou64(argv[1], 10, &blocks);
	return r ? r : vd_volume_reserve(p->engine, vol, blocks);
}

/* set NAME readonly=0|1 | attrs=TEXT: one of them, so that it is done or not done */
static int set(struct vdk_pool *p, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	const char *attrs = value(argc, argv, "attrs");
	u64 readonly = 2;
	uint32_t vol;
	int r = vdk_find_volume(p, argv[0], &vol);

	if (!r)
		r = number(argc, argv, "readonly", &readonly);
	if (r)
		return r;
	if (attrs)
		return vd_volume_set_attrs(p->engine, vol, attrs);
	if (readonly > 1)
		return -EINVAL;
	return vd_volume_set_flags(p->engine, vol, readonly ? VD_VOL_READONLY : 0, readonly ? 0 : VD_VOL_READONLY);
}

static int lock(struct vdk_pool *p, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	struct vd_disk_holder who = { };
	uint32_t vol;
	int r = vdk_find_volume(p, argv[0], &vol);

	if (!r)
		r = holder(argc, argv, &who);
	return r ? r : vd_volume_lock(p->engine, vol, &who);
}

static int unlock(struct vdk_pool *p, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	uint32_t vol;
	int r = vdk_find_volume(p, argv[0], &vol);

	return r ? r : vd_volume_unlock(p->engine, vol);
}

/* pointer_add NAME ro|rw [KEY=VALUE]...: answers the link's number */
static int pointer_add(struct vdk_pool *p, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	struct vd_disk_pointer ptr = { .mode = cpu_to_le32(!strcmp(argv[1], "rw")) };
	uint32_t vol, link;
	int r = vdk_find_volume(p, argv[0], &vol);

	if (!r && strcmp(argv[1], "rw") && strcmp(argv[1], "ro"))
		r = -EINVAL;
	if (!r)
		r = pointer(argc, argv, &ptr);
	if (!r)
		r = vd_volume_pointer_add(p->engine, vol, &ptr, &link);
	return r ? r : answer(result, maxlen, link);
}

/* pointer_set NAME LINK [KEY=VALUE]...: what is not told stays as it is */
static int pointer_set(struct vdk_pool *p, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	struct vd_volume_info *info;
	uint32_t vol, link;
	unsigned int i;
	int r = vdk_find_volume(p, argv[0], &vol);

	if (!r)
		r = kstrtou32(argv[1], 10, &link);
	if (r)
		return r;
	info = kmalloc(sizeof(*info), GFP_KERNEL);
	if (!info)
		return -ENOMEM;
	r = vd_volume_info(p->engine, vol, info);
	for (i = 0; !r && i < info->npointers && le32_to_cpu(info->pointer[i].link) != link; i++)
		;
	if (!r && i == info->npointers)
		r = -ENOENT;
	if (!r)
		r = pointer(argc, argv, &info->pointer[i]);
	if (!r)
		r = vd_volume_pointer_set(p->engine, vol, link, &info->pointer[i]);
	kfree(info);
	return r;
}

static int pointer_del(struct vdk_pool *p, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	uint32_t vol, link;
	int r = vdk_find_volume(p, argv[0], &vol);

	if (!r)
		r = kstrtou32(argv[1], 10, &link);
	return r ? r : vd_volume_pointer_del(p->engine, vol, link);
}

/* args: that come before any KEY=VALUE; keys: whether these may follow */
static const struct {
	const char *name;
	unsigned int args;
	bool keys;
	int (*fn)(struct vdk_pool *p, unsigned int argc, char **argv, char *result, unsigned int maxlen);
} messages[] = {
	{ "create", 2, true, create },
	{ "rollback", 2, false, rollback },
	{ "resize", 2, false, resize },
	{ "reserve", 2, false, reserve },
	{ "set", 1, true, set },
	{ "lock", 1, true, lock },
	{ "unlock", 1, false, unlock },
	{ "pointer_add", 2, true, pointer_add },
	{ "pointer_set", 2, true, pointer_set },
	{ "pointer_del", 2, false, pointer_del },
};

int vdk_message(struct vdk_pool *p, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	unsigned int i;

	if (argc >= 5 && !strcmp(argv[0], "snapshot"))
		return snapshot(p, argc - 1, argv + 1, result, maxlen);
	for (i = 0; i < ARRAY_SIZE(messages); i++) {
		if (strcmp(argv[0], messages[i].name))
			continue;
		if (argc - 1 < messages[i].args || (argc - 1 > messages[i].args && !messages[i].keys) ||
		    !known_keys(argc - 1 - messages[i].args, argv + 1 + messages[i].args))
			return -EINVAL;
		return messages[i].fn(p, argc - 1, argv + 1, result, maxlen);
	}
	return -EOPNOTSUPP;
}
