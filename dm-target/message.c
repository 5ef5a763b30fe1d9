// SPDX-License-Identifier: GPL-2.0-only
/*
 * Messages: dm-thin's, and what libvol asks of a pool that the kernel has open.
 * README.md lists them.
 *
 * A volume is named by its name, or by #ID, which stays the same when it is renamed.
 * What else there is comes as KEY=VALUE.  A key that the message has no use for, or that
 * comes twice, is refused: who sent it would take for done what was not.
 */
#include <linux/kernel.h>
#include <linux/ktime.h>
#include <linux/pid.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "dm-vd.h"

#define VDK_SNAP_MAX 256u /* at one instant; vd.h */

/* Whose keys they are */
enum { CREATE = 1, SET = 2, LOCK = 4, POINTER = 8, POOL = 16, SERVER = 32, HOLDER = CREATE | LOCK | POINTER };

static bool known_keys(unsigned int argc, char **argv, unsigned int message)
{
	static const struct { const char *name; unsigned int messages; } keys[] = {
		{ "uuid", CREATE | SERVER }, { "locked", CREATE }, { "reserve", CREATE }, { "base", CREATE },
		{ "readonly", CREATE | SET }, { "attrs", CREATE | SET | SERVER },
		{ "epoch", POINTER }, { "opened_as", POINTER }, { "mount", POINTER }, { "server", POINTER },
		{ "host", HOLDER }, { "boot", HOLDER }, { "hostname", HOLDER },
		{ "purpose", HOLDER }, { "pid", HOLDER }, { "since", HOLDER },
		{ "policy", POOL }, { "discards", POOL }, { "thresholds", POOL }, { "grow_by", POOL }, { "grow_to", POOL },
	};
	unsigned int i, seen = 0;

	for (; argc; argc--, argv++) {
		const char *end = strchr(*argv, '=');

		for (i = 0; end && i < ARRAY_SIZE(keys); i++)
			if (strlen(keys[i].name) == end - *argv && !strncmp(*argv, keys[i].name, end - *argv))
				break;
		if (!end || i == ARRAY_SIZE(keys) || !(keys[i].messages & message) || seen >> i & 1)
			return false;
		seen |= 1u << i;
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

static int look_up(struct vdk_pool *p, const char *name, uint32_t *vol)
{
	return *name == '#' ? kstrtou32(name + 1, 10, vol) : vd_volume_find(p->engine, name, vol);
}

/* One that has to be there. */
static int find(struct vdk_pool *p, const char *name, uint32_t *vol)
{
	int r = look_up(p, name, vol);

	if (r == -ENOENT)
		DMWARN("pool %s has no volume %s", p->name, name);
	return r;
}

static int answer(char *result, unsigned int maxlen, uint32_t n)
{
	unsigned int sz = 0;

	DMEMIT("%u", n);
	return 1; /* there is one */
}

/* ---- messages about volumes: vol is the one that argv[0] names, where there has to be one ---- */

/* create NAME SECTORS [KEY=VALUE]... */
static int create(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	struct vd_volume_spec *spec = kzalloc(sizeof(*spec), GFP_KERNEL);
	u64 sectors, readonly = 0, locked = 0;
	uint32_t made;
	int r;

	if (!spec)
		return -ENOMEM;
	spec->name = argv[0];
	spec->attrs = value(argc, argv, "attrs");
	spec->base = value(argc, argv, "base");
	generate_random_uuid(spec->uuid);
	r = kstrtou64(argv[1], 10, &sectors);
	if (!r && (sectors >> (63 - SECTOR_SHIFT) || (spec->base && *spec->base != '/')))
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
	if (!r && (readonly > 1 || locked > 1 || (!locked && memchr_inv(&spec->lock, 0, sizeof(spec->lock)))))
		r = -EINVAL;
	spec->flags = (readonly ? VD_VOL_READONLY : 0) | (locked ? VD_VOL_LOCKED : 0);
	if (!r)
		r = vd_volume_create(p->engine, spec, &made);
	kfree(spec);
	return r ? r : answer(result, maxlen, made);
}

/* create_thin NAME [SECTORS] */
static int create_thin(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	char *args[2] = { argv[0], argc > 1 ? argv[1] : "8" };
	int r = create(p, vol, 2, args, result, maxlen);

	return r < 0 ? r : 0; /* dm-thin's has no answer */
}

/* n snapshots at one instant, each told by `words` words: NAME ORIGIN [UUID] */
static int snapshots(struct vdk_pool *p, unsigned int n, unsigned int words, char **argv, uint32_t flags, char *result,
		     unsigned int maxlen)
{
	unsigned int i, sz = 0;
	struct vd_snap *snap = kvcalloc(n, sizeof(*snap), GFP_KERNEL);
	int r = 0;

	if (!snap)
		return -ENOMEM;
	for (i = 0; i < n && !r; i++, argv += words) {
		snap[i].name = argv[0];
		snap[i].flags = flags;
		generate_random_uuid(snap[i].uuid);
		r = find(p, argv[1], &snap[i].origin);
		if (!r && words > 2)
			r = vdk_parse_id(argv[2], snap[i].uuid);
	}
	if (!r)
		r = vd_snapshot(p->engine, snap, n);
	for (i = 0; i < n && !r; i++)
		DMEMIT("%s%u", i ? " " : "", snap[i].id);
	kvfree(snap);
	return r ? r : 1;
}

/* snapshot ro|rw {NAME ORIGIN UUID}...: answers their ids */
static int snapshot(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	if ((argc - 1) % 3 || (strcmp(argv[0], "ro") && strcmp(argv[0], "rw")))
		return -EINVAL;
	return snapshots(p, argc / 3, 3, argv + 1, argv[0][1] == 'o' ? VD_VOL_READONLY : 0, result, maxlen);
}

/* create_snap {NAME ORIGIN}... */
static int create_snap(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	int r = argc % 2 ? -EINVAL : snapshots(p, argc / 2, 2, argv, 0, result, maxlen);

	return r < 0 ? r : 0;
}

static int delete(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	return vd_volume_delete(p->engine, vol);
}

static int rename(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	return vd_volume_rename(p->engine, vol, argv[1]);
}

static int rollback(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	uint32_t from;
	int r = find(p, argv[1], &from);

	return r ? r : vd_rollback(p->engine, vol, from);
}

static int resize(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	u64 sectors;
	int r = kstrtou64(argv[1], 10, &sectors);

	if (!r && sectors >> (63 - SECTOR_SHIFT))
		r = -EINVAL;
	return r ? r : vd_volume_resize(p->engine, vol, sectors << SECTOR_SHIFT);
}

/* reserve NAME BLOCKS */
static int reserve(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	u64 blocks;
	int r = kstrtou64(argv[1], 10, &blocks);

	return r ? r : vd_volume_reserve(p->engine, vol, blocks);
}

/* set NAME readonly=0|1 | attrs=TEXT: one of them, so that it is done or not done */
static int set(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	const char *attrs = value(argc, argv, "attrs");
	u64 readonly = 2;
	int r = number(argc, argv, "readonly", &readonly);

	if (r)
		return r;
	if (argc != 2)
		return -EINVAL;
	if (attrs)
		return vd_volume_set_attrs(p->engine, vol, attrs);
	if (readonly > 1)
		return -EINVAL;
	return vd_volume_set_flags(p->engine, vol, readonly ? VD_VOL_READONLY : 0, readonly ? 0 : VD_VOL_READONLY);
}

static int lock(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	struct vd_disk_holder who = p->self;
	int r;

	who.since = cpu_to_le64(ktime_get_real_ns());
	r = holder(argc, argv, &who);
	return r ? r : vd_volume_lock(p->engine, vol, &who);
}

static int unlock(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	return vd_volume_unlock(p->engine, vol);
}

/* pointer_add NAME ro|rw [KEY=VALUE]...: answers the link's number */
static int pointer_add(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	struct vd_disk_pointer ptr = { .mode = cpu_to_le32(!strcmp(argv[1], "rw")) };
	uint32_t link;
	int r;

	if (strcmp(argv[1], "rw") && strcmp(argv[1], "ro"))
		return -EINVAL;
	r = pointer(argc, argv, &ptr);
	if (!r)
		r = vd_volume_pointer_add(p->engine, vol, &ptr, &link);
	return r ? r : answer(result, maxlen, link);
}

/* pointer_set NAME LINK [KEY=VALUE]...: what is not told stays as it is */
static int pointer_set(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	struct vd_volume_info *info;
	uint32_t link;
	unsigned int i;
	int r = kstrtou32(argv[1], 10, &link);

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

static int pointer_del(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	uint32_t link;
	int r = kstrtou32(argv[1], 10, &link);

	return r ? r : vd_volume_pointer_del(p->engine, vol, link);
}

static const char *text_of(const char *field, size_t size)
{
	return strnlen(field, size) ? field : "-";
}

/* One line about the volume itself, one for its lock, one for its base image, one for each attribute. */
static int show(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	struct vd_volume_info *info = kmalloc(sizeof(*info), GFP_KERNEL);
	const char *line, *end;
	unsigned int sz = 0;
	int r;

	if (!info)
		return -ENOMEM;
	r = vd_volume_info(p->engine, vol, info);
	if (r)
		goto out;
	DMEMIT("id %u uuid %pUb size %llu mapped %llu reserved %llu origin %u mode %s pointers %u", info->id, info->uuid,
	       info->size >> SECTOR_SHIFT, info->mapped * VD_SECTORS_PER_BLOCK, info->reserved, info->origin,
	       info->flags & VD_VOL_READONLY ? "ro" : "rw", info->npointers);
	if (info->flags & VD_VOL_LOCKED)
		DMEMIT("\nlocked by %.64s for %.32s", text_of(info->lock.hostname, 64), text_of(info->lock.purpose, 32));
	if (info->flags & VD_VOL_BASE)
		DMEMIT("\nbase %.*s", (int)sizeof(info->base), info->base);
	for (line = info->attrs; *line; line = *end ? end + 1 : end) {
		end = strchrnul(line, '\n');
		DMEMIT("\n%.*s", (int)(end - line), line);
	}
	r = 1;
out:
	kfree(info);
	return r;
}

#define BLANKS " \t\n\v\f\r\\" /* and 0xa0, which UTF-8 has inside of letters, and who reads takes for none */

/* " KEY=TEXT", as values are written in messages: with a backslash before what would end them. */
static unsigned int emit_text(char *result, unsigned int maxlen, unsigned int sz, const char *key, const char *text, size_t size)
{
	const char *end = text + strnlen(text, size);
	int n;

	DMEMIT(" %s=", key);
	while (text < end) {
		for (n = 0; text + n < end && !strchr(BLANKS, text[n]); n++)
			;
		DMEMIT("%.*s", n, text);
		text += n;
		if (text < end)
			DMEMIT("\\%c", *text++);
	}
	return sz;
}

static unsigned int emit_holder(char *result, unsigned int maxlen, unsigned int sz, const struct vd_disk_holder *who)
{
	DMEMIT(" host=%pUb boot=%pUb pid=%llu since=%llu", who->host, who->boot, le64_to_cpu(who->pid), le64_to_cpu(who->since));
	sz = emit_text(result, maxlen, sz, "hostname", who->hostname, sizeof(who->hostname));
	return emit_text(result, maxlen, sz, "purpose", who->purpose, sizeof(who->purpose));
}

static unsigned int emit_record(char *result, unsigned int maxlen, unsigned int sz, const struct vd_volume_info *info)
{
	unsigned int i;

	DMEMIT("\nvolume id=%u flags=%u uuid=%pUb size=%llu mapped=%llu reserved=%llu unused=%llu origin=%u family=%llu last_snapshot=%llu created=%llu blank=%u",
	       info->id, info->flags, info->uuid, info->size, info->mapped, info->reserved, info->unused, info->origin, info->family,
	       info->last_snapshot, info->created, info->blank);
	sz = emit_text(result, maxlen, sz, "name", info->name, sizeof(info->name));
	sz = emit_text(result, maxlen, sz, "base", info->base, sizeof(info->base));
	sz = emit_text(result, maxlen, sz, "attrs", info->attrs, sizeof(info->attrs));
	if (info->flags & VD_VOL_LOCKED) {
		DMEMIT("\nlock");
		sz = emit_holder(result, maxlen, sz, &info->lock);
	}
	for (i = 0; i < info->npointers; i++) {
		const struct vd_disk_pointer *ptr = &info->pointer[i];

		DMEMIT("\npointer link=%u mode=%u epoch=%llu", le32_to_cpu(ptr->link), le32_to_cpu(ptr->mode), le64_to_cpu(ptr->epoch));
		sz = emit_holder(result, maxlen, sz, &ptr->who);
		sz = emit_text(result, maxlen, sz, "opened_as", ptr->opened_as, sizeof(ptr->opened_as));
		sz = emit_text(result, maxlen, sz, "mount", ptr->mount, sizeof(ptr->mount));
		sz = emit_text(result, maxlen, sz, "server", ptr->server, sizeof(ptr->server));
	}
	return sz;
}

/* record NAME: all that is recorded of it, for programs; of one that there is not, only the pool's line. */
static int record(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	struct vd_volume_info *info = kmalloc(sizeof(*info), GFP_KERNEL);
	enum vd_pool_mode mode;
	unsigned int sz = 0;
	uint64_t epoch;
	int r;

	if (!info)
		return -ENOMEM;
	vd_pool_now(p->engine, &mode, &epoch);
	r = look_up(p, argv[0], &vol);
	if (!r)
		r = vd_volume_info(p->engine, vol, info);
	if (r && r != -ENOENT)
		goto out;
	DMEMIT("pool mode=%u epoch=%llu", mode, epoch);
	if (!r)
		sz = emit_record(result, maxlen, sz, info);
	r = 1;
out:
	kfree(info);
	return r;
}

/* A line each: ID NAME.  That it is not all of them is said in the kernel's log. */
static int list(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	struct vd_volume_info *info = kmalloc(sizeof(*info), GFP_KERNEL);
	bool lost = false;
	unsigned int sz = 0;
	int r = 0;

	if (!info)
		return -ENOMEM;
	if (maxlen)
		*result = 0; /* it is where the message came in */
	for (vol = 0; !r && !vd_volume_next(p->engine, &vol, &lost); vol++) {
		const char *name = vd_volume_info(p->engine, vol, info) ? "-" : info->name;

		DMEMIT("%s%u %s", sz ? "\n" : "", vol, name);
		if (sz + 1 >= maxlen) /* the caller comes again with more room */
			break;
		if (fatal_signal_pending(current))
			r = -EINTR;
	}
	if (lost && sz + 1 < maxlen)
		DMWARN("pool %s: part of the list of volumes is lost: there may be more than these", p->name);
	kfree(info);
	return r ? r : 1;
}

/* ---- messages about servers ------------------------------------------------ */

/* server_add NAME [KEY=VALUE]... */
static int server_add(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	const char *attrs = value(argc, argv, "attrs");
	uint8_t uuid[16];
	uint32_t made;
	int r;

	generate_random_uuid(uuid);
	r = id(argc, argv, "uuid", uuid);
	if (!r)
		r = vd_server_add(p->engine, argv[0], uuid, attrs ? attrs : "", &made);
	return r ? r : answer(result, maxlen, made);
}

/* server_del NAME: that no open pointer names it is for the sender to see to */
static int server_del(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	int r = vd_server_find(p->engine, argv[0], &vol);

	return r ? r : vd_server_delete(p->engine, vol);
}

/* A line each: ID NAME, and its attributes */
static int server_list(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	struct vd_server_info *info = kmalloc(sizeof(*info), GFP_KERNEL);
	unsigned int sz = 0;
	int r = 0;

	if (!info)
		return -ENOMEM;
	if (maxlen)
		*result = 0;
	for (vol = 0; !r && !vd_server_next(p->engine, &vol); vol++) {
		if (vd_server_info(p->engine, vol, info))
			continue; /* deleted just now */
		strreplace(info->attrs, '\n', ' ');
		DMEMIT("%s%u %s %s", sz ? "\n" : "", vol, info->name, info->attrs);
		if (sz + 1 >= maxlen) /* the caller comes again with more room */
			break;
		if (fatal_signal_pending(current))
			r = -EINTR;
	}
	kfree(info);
	return r ? r : 1;
}

/* ---- messages about the pool ---------------------------------------------- */

static int checkpoint(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	return vd_checkpoint(p->engine);
}

/* set_transaction_id CURRENT NEW */
static int set_transaction_id(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	u64 was, now;
	int r = kstrtou64(argv[0], 10, &was);

	if (!r)
		r = kstrtou64(argv[1], 10, &now);
	if (!r)
		r = vd_pool_set_transaction(p->engine, was, now);
	if (r == -EBUSY) {
		DMWARN("pool %s: its transaction is not %llu", p->name, was);
		r = -EINVAL; /* as dm-thin says it */
	}
	return r;
}

/* thresholds [PERMILLE]... */
static int thresholds(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	struct vd_pool_info *info = kmalloc(sizeof(*info), GFP_KERNEL);
	unsigned int i;
	int r = 0;

	if (!info)
		return -ENOMEM;
	mutex_lock(&p->message_lock);
	vd_pool_info(p->engine, info);
	memset(info->policy.threshold, 0, sizeof(info->policy.threshold));
	for (i = 0; i < argc && !r; i++)
		r = kstrtou32(argv[i], 10, &info->policy.threshold[i]);
	if (!r)
		r = vd_pool_set(p->engine, &info->policy);
	mutex_unlock(&p->message_lock);
	kfree(info);
	return r;
}

/* "800,900": up to four; the rest are 0. */
static int per_milles(const char *text, uint32_t out[4])
{
	uint32_t got[4] = { 0 };
	unsigned int n = 0;
	const char *end;
	char word[8];

	for (;; text = end + 1) {
		end = strchrnul(text, ',');
		if (n == ARRAY_SIZE(got) || end - text >= sizeof(word))
			return -EINVAL;
		memcpy(word, text, end - text);
		word[end - text] = 0;
		if (kstrtou32(word, 10, &got[n++]))
			return -EINVAL;
		if (!*end)
			break;
	}
	memcpy(out, got, sizeof(got));
	return 0;
}

/* policy=queue after error: writes wait again, though there is no more space than there was. */
static void wait_again(struct vdk_pool *p)
{
	spin_lock_irq(&p->lock);
	if (p->full == VDK_FULL_AS_POOL)
		p->refuses = false;
	spin_unlock_irq(&p->lock);
}

/* pool_set KEY=VALUE [KEY=VALUE]...: what is not told stays as it is */
static int pool_set(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	const char *policy = value(argc, argv, "policy"), *discards = value(argc, argv, "discards"), *list = value(argc, argv, "thresholds");
	struct vd_pool_info *info;
	bool queue = policy && !strcmp(policy, "queue"), passdown = discards && !strcmp(discards, "passdown");
	int r;

	if (!argc || (policy && !queue && strcmp(policy, "error")) || (discards && !passdown && strcmp(discards, "nopassdown")))
		return -EINVAL;
	info = kmalloc(sizeof(*info), GFP_KERNEL);
	if (!info)
		return -ENOMEM;
	mutex_lock(&p->message_lock);
	vd_pool_info(p->engine, info);
	if (policy)
		info->policy.flags = (info->policy.flags & ~VD_POLICY_ERROR_IF_FULL) | (queue ? 0 : VD_POLICY_ERROR_IF_FULL);
	if (discards)
		info->policy.flags = (info->policy.flags & ~VD_POLICY_NO_DISCARD) | (passdown ? 0 : VD_POLICY_NO_DISCARD);
	r = list ? per_milles(list, info->policy.threshold) : 0;
	if (!r)
		r = number(argc, argv, "grow_by", &info->policy.grow_by);
	if (!r)
		r = number(argc, argv, "grow_to", &info->policy.grow_to);
	if (!r)
		r = vd_pool_set(p->engine, &info->policy);
	mutex_unlock(&p->message_lock);
	kfree(info);
	if (!r && queue)
		wait_again(p);
	if (!r)
		p->host.kick(p); /* it acts on it */
	return r;
}

/* grow [MEMBER]: takes in what it, or any, has become larger by */
static int grow(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	unsigned int m;
	int r;

	if (p->readonly)
		return -EROFS;
	if (!argc)
		return vdk_grow_members(p, NULL);
	r = kstrtouint(argv[0], 10, &m);
	return r ? r : vdk_grow_member(p, m, NULL);
}

static void set_reader(struct vdk_pool *p, struct pid *pid)
{
	put_pid(p->reader);
	p->reader = get_pid(pid);
}

void vdk_reader_look(struct vdk_pool *p)
{
	struct task_struct *task;

	mutex_lock(&p->message_lock);
	rcu_read_lock();
	task = p->reader ? pid_task(p->reader, PIDTYPE_TGID) : NULL;
	if (task && READ_ONCE(task->exit_state)) /* nobody has waited for it */
		task = NULL;
	rcu_read_unlock();
	if (p->reader && !task) {
		(void)!vd_pool_unpin(p->engine, VD_PIN_CHECK);
		set_reader(p, NULL);
	}
	mutex_unlock(&p->message_lock);
}

/* The process that sends it has the metadata kept for it, until it ends at the latest.  There is one
 * such: a later one takes its place, and unpin tells it so. */
static int pin(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	int r;

	mutex_lock(&p->message_lock);
	(void)!vd_pool_unpin(p->engine, VD_PIN_CHECK);
	r = vd_pool_pin(p->engine, VD_PIN_CHECK);
	set_reader(p, r ? NULL : task_tgid(current));
	mutex_unlock(&p->message_lock);
	return r;
}

static int unpin(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	int r = -ENOENT;

	mutex_lock(&p->message_lock);
	if (p->reader == task_tgid(current)) {
		r = vd_pool_unpin(p->engine, VD_PIN_CHECK);
		set_reader(p, NULL);
	}
	mutex_unlock(&p->message_lock);
	return r;
}

/* As dm-thin holds a root of its metadata for a tool that reads beside it. */
static int reserve_metadata_snap(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	int r = vd_pool_pin(p->engine, VD_PIN_USER);

	if (r == -EBUSY)
		DMWARN("pool %s: a state of its metadata is reserved already; message release_metadata_snap lets it go", p->name);
	return r;
}

static int release_metadata_snap(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	return vd_pool_unpin(p->engine, VD_PIN_USER);
}

/* From least to most words after the message's own; keys: each of these may follow, as KEY=VALUE;
 * volume: the first word is one that there is */
static const struct {
	const char *name;
	unsigned int least, most, keys;
	bool volume;
	int (*fn)(struct vdk_pool *p, uint32_t vol, unsigned int argc, char **argv, char *result, unsigned int maxlen);
} messages[] = {
	{ "create_thin", 1, 2, 0, false, create_thin },
	{ "create_snap", 2, 2 * VDK_SNAP_MAX, 0, false, create_snap },
	{ "delete", 1, 1, 0, true, delete },
	{ "set_transaction_id", 2, 2, 0, false, set_transaction_id },
	{ "reserve_metadata_snap", 0, 0, 0, false, reserve_metadata_snap },
	{ "release_metadata_snap", 0, 0, 0, false, release_metadata_snap },
	{ "pin", 0, 0, 0, false, pin },
	{ "unpin", 0, 0, 0, false, unpin },
	{ "create", 2, 2, CREATE, false, create },
	{ "snapshot", 4, 1 + 3 * VDK_SNAP_MAX, 0, false, snapshot },
	{ "rename", 2, 2, 0, true, rename },
	{ "rollback", 2, 2, 0, true, rollback },
	{ "resize", 2, 2, 0, true, resize },
	{ "reserve", 2, 2, 0, true, reserve },
	{ "set", 1, 1, SET, true, set },
	{ "lock", 1, 1, LOCK, true, lock },
	{ "unlock", 1, 1, 0, true, unlock },
	{ "pointer_add", 2, 2, POINTER, true, pointer_add },
	{ "pointer_set", 2, 2, POINTER, true, pointer_set },
	{ "pointer_del", 2, 2, 0, true, pointer_del },
	{ "show", 1, 1, 0, true, show },
	{ "record", 1, 1, 0, false, record },
	{ "list", 0, 0, 0, false, list },
	{ "server_add", 1, 1, SERVER, false, server_add },
	{ "server_del", 1, 1, 0, false, server_del },
	{ "server_list", 0, 0, 0, false, server_list },
	{ "thresholds", 0, 4, 0, false, thresholds },
	{ "pool_set", 0, 0, POOL, false, pool_set },
	{ "grow", 0, 1, 0, false, grow },
	{ "checkpoint", 0, 0, 0, false, checkpoint },
};

int vdk_message(struct vdk_pool *p, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	unsigned int i, n = argc - 1;
	uint32_t vol = 0;
	int r;

	for (i = 0; i < ARRAY_SIZE(messages); i++) {
		if (strcasecmp(argv[0], messages[i].name))
			continue;
		if (n < messages[i].least || (n > messages[i].most && !messages[i].keys) ||
		    (messages[i].keys && !known_keys(n - messages[i].least, argv + 1 + messages[i].least, messages[i].keys)))
			break;
		r = messages[i].volume ? find(p, argv[1], &vol) : 0;
		return r ? r : messages[i].fn(p, vol, n, argv + 1, result, maxlen);
	}
	DMWARN("pool %s: message %s is not known, or has wrong arguments", p->name, argv[0]);
	return -EINVAL;
}
