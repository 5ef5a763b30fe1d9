// SPDX-License-Identifier: LGPL-2.1-or-later
/* Drives of a QEMU guest. vm.h tells. */
#include "vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "qmp.h"
#include "virt.h"

#define ID_SIZE 32 /* a node's name has no more */
#define ENDING_MS 2000

static void drive_id(const struct link_info *l, char id[ID_SIZE])
{
	int n = snprintf(id, ID_SIZE, "vd-");

	for (unsigned i = 0; i < 14; i++)
		n += snprintf(id + n, ID_SIZE - (size_t)n, "%02x", l->volume_uuid[i]);
}

/* Its sockets close a moment before it ends. */
bool vm_has_ended(pid_t pid, uint64_t began)
{
	int fd = pid > 0 ? pidfd_open(pid, 0) : -1;
	uint64_t now;
	bool ended = pid <= 0 || !vol_process(pid, NULL, &now) || now != began || (fd >= 0 && vol_process_wait(fd, ENDING_MS));

	if (fd >= 0)
		close(fd);
	return ended;
}

/* ---- where QEMU keeps things ------------------------------------------------ */

/* {name type} of what is below a path. */
static int list(struct qmp *q, const char *path, struct json_object **out)
{
	struct json_object *args = json_object_new_object();
	int r;

	json_set_str(args, "path", path);
	r = qmp_call(q, "qom-list", args, out);
	if (!r && !json_object_is_type(*out, json_type_array)) {
		json_object_put(*out);
		r = vol_fail(NULL, -EPROTO, "QEMU's answer to qom-list is no list");
	}
	return r;
}

static int get_number(struct qmp *q, const char *path, const char *property, uint64_t *n)
{
	struct json_object *args = json_object_new_object(), *v = NULL;
	int r;

	json_set_str(args, "path", path);
	json_set_str(args, "property", property);
	r = qmp_call(q, "qom-get", args, &v);
	if (r)
		return r;
	if (json_object_is_type(v, json_type_int) && json_object_get_int64(v) >= 0)
		*n = json_object_get_uint64(v);
	else
		r = vol_fail(NULL, -EPROTO, "QEMU tells no %s of %s", property, path);
	json_object_put(v);
	return r;
}

struct bus { const char *want; char name[64]; unsigned n; };

/* The bus of a controller that is called so. */
static int look_at_controller(struct qmp *q, const char *container, const char *controller, struct bus *bus)
{
	struct json_object *items;
	char path[256];
	int r;

	if (snprintf(path, sizeof(path), "%s/%s/virtio-backend", container, controller) >= (int)sizeof(path))
		return 0;
	r = list(q, path, &items);
	if (r)
		return r == -EREMOTEIO ? 0 : r; /* it is just being unplugged */
	for (size_t i = 0; i < json_object_array_length(items); i++) {
		struct json_object *o = json_object_array_get_idx(items, i);
		const char *name = json_str(o, "name");

		if (strcmp(json_str(o, "type"), "child<SCSI>") || strlen(name) >= sizeof(bus->name) ||
		    (*bus->want && strcmp(bus->want, name) && strcmp(bus->want, controller)))
			continue;
		if (!bus->n++)
			snprintf(bus->name, sizeof(bus->name), "%s", name);
	}
	json_object_put(items);
	return 0;
}

static int find_bus(struct qmp *q, const struct server *s, struct bus *bus)
{
	static const char *const container[] = { "/machine/peripheral", "/machine/peripheral-anon" };
	static const char type[] = "child<virtio-scsi-";
	struct json_object *items;
	int r = 0;

	bus->want = s->bus;
	for (unsigned k = 0; !r && k < 2; k++) {
		r = list(q, container[k], &items);
		if (r)
			break;
		for (size_t i = 0; !r && i < json_object_array_length(items); i++) {
			struct json_object *o = json_object_array_get_idx(items, i);

			if (!strncmp(json_str(o, "type"), type, strlen(type)))
				r = look_at_controller(q, container[k], json_str(o, "name"), bus);
		}
		json_object_put(items);
	}
	if (r)
		return r;
	if (!bus->n && *s->bus)
		return vol_fail(NULL, -ENODEV, "VM %s has no virtio-scsi controller or bus %s", s->name, s->bus);
	if (!bus->n)
		return vol_fail(NULL, -ENODEV, "VM %s has no virtio-scsi controller\n"
				"start it with one: -device virtio-scsi-pci,id=scsi0", s->name);
	if (bus->n > 1)
		return vol_fail(NULL, -ENOTUNIQ, "VM %s has %u virtio-scsi controllers; say which: vdserver add --bus", s->name, bus->n);
	return 0;
}

/* ---- plugging ----------------------------------------------------------------- */

static int blockdev_add(struct qmp *q, const struct link_info *l, const char *id)
{
	struct json_object *args = json_object_new_object(), *cache = json_object_new_object();

	json_set_str(args, "driver", "host_device");
	json_set_str(args, "node-name", id);
	json_set_str(args, "filename", l->device);
	json_set_bool(args, "read-only", l->readonly);
	json_set_str(args, "discard", "unmap");
	/* What the guest flushed is with the pool: no page cache of QEMU's in between. */
	json_set_bool(cache, "direct", true);
	json_set_bool(cache, "no-flush", false);
	json_set(args, "cache", cache);
	return qmp_call(q, "blockdev-add", args, NULL);
}

/* 1: there is a node of that name; 0; -errno. */
static int node_there(struct qmp *q, const char *id)
{
	struct json_object *args = json_object_new_object(), *nodes;
	int r, there = 0;

	json_set_bool(args, "flat", true);
	r = qmp_call(q, "query-named-block-nodes", args, &nodes);
	if (r)
		return r;
	for (size_t i = 0; json_object_is_type(nodes, json_type_array) && i < json_object_array_length(nodes); i++)
		there |= !strcmp(json_str(json_object_array_get_idx(nodes, i), "node-name"), id);
	json_object_put(nodes);
	return there;
}

/* 0 also when there is no such node.  A device that has gone keeps its node for a moment, and no event
 * tells when that ends. */
static int blockdev_del(struct qmp *q, const char *id)
{
	int64_t end = vol_now_ms() + ENDING_MS;
	struct json_object *args;
	char why[256];
	int r;

	for (;;) {
		args = json_object_new_object();
		json_set_str(args, "node-name", id);
		r = qmp_call(q, "blockdev-del", args, NULL);
		if (r != -EREMOTEIO)
			return r;
		snprintf(why, sizeof(why), "%s", qmp_desc(q));
		r = node_there(q, id);
		if (r <= 0)
			return r;
		if (vol_now_ms() > end || vol_interrupted())
			return vol_fail(NULL, -EBUSY, "QEMU does not let go of the drive: %s", why);
		vol_nap(10);
	}
}

/* QEMU chooses the address: two who plug at once do not choose the same. */
static int device_add(struct qmp *q, const struct server *s, const struct link_info *l, const char *id, const struct bus *bus,
		      unsigned sector)
{
	struct json_object *args = json_object_new_object();
	char serial[VOL_UUID_TEXT], product[2 * VOL_NAME_SIZE];
	int r;

	vol_uuid_text(l->volume_uuid, serial);
	snprintf(product, sizeof(product), "%s/%s", l->pool, l->volume);
	product[16] = 0; /* as much as there is room for */
	json_set_str(args, "driver", "scsi-hd");
	json_set_str(args, "id", id);
	json_set_str(args, "bus", bus->name);
	json_set_str(args, "drive", id);
	json_set_str(args, "vendor", "vd"); /* by which a guest's udev knows it: 62-vd-drives.rules */
	json_set_str(args, "product", product);
	json_set_str(args, "serial", serial);
	json_set_str(args, "device_id", serial); /* else the first 20 bytes of it */
	json_set_u64(args, "logical_block_size", sector);
	json_set_u64(args, "physical_block_size", VD_BLOCK);
	r = qmp_call(q, "device_add", args, NULL);
	if (r == -EREMOTEIO && strstr(qmp_desc(q), "no free target"))
		return vol_fail(NULL, -ENOSPC, "no address is free on bus %s of VM %s", bus->name, s->name);
	return r;
}

static int ready(const struct server *s)
{
	struct bus bus = { .n = 0 };
	struct qmp *q;
	int r = qmp_open(s->qmp, false, &q);

	if (r)
		return r;
	r = find_bus(q, s, &bus);
	qmp_close(q);
	return r;
}

/* Refused, so that nothing was done; else what QEMU has is not known. */
static int plug(struct qmp *q, const struct server *s, struct link_info *l, const struct bus *bus, unsigned sector)
{
	char id[ID_SIZE], why[1024];
	int r;

	drive_id(l, id);
	r = blockdev_add(q, l, id);
	if (!r)
		r = device_add(q, s, l, id, bus, sector);
	else if (r == -EREMOTEIO)
		l->vm = 0;
	if (r == -EREMOTEIO || r == -ENOSPC) {
		snprintf(why, sizeof(why), "%s", vol_error(NULL));
		if (!l->vm || !blockdev_del(q, id))
			l->vm = 0;
		vol_fail(NULL, r, "%s", why);
	}
	return r;
}

static int plug_disk(const struct server *s, struct link_info *l, unsigned sector)
{
	struct bus bus = { .n = 0 };
	struct qmp *q;
	int r = qmp_open(s->qmp, false, &q);

	if (r)
		return r;
	r = find_bus(q, s, &bus);
	if (!r && (qmp_pid(q) <= 0 || !vol_process(qmp_pid(q), NULL, &l->vm_began)))
		r = vol_fail(NULL, -ESRCH, "the process of VM %s cannot be seen from here: QEMU itself must have made %s", s->name, s->qmp);
	if (!r) {
		l->vm = qmp_pid(q);
		r = plug(q, s, l, &bus, sector);
	}
	qmp_close(q);
	return r;
}

static int find_address(struct qmp *q, const char *id, struct link_info *l)
{
	char path[96], bus[64] = "";
	struct json_object *args = json_object_new_object(), *v = NULL;
	uint64_t channel = 0, target = 0, lun = 0;
	int r;

	snprintf(path, sizeof(path), "/machine/peripheral/%s", id);
	json_set_str(args, "path", path);
	json_set_str(args, "property", "parent_bus");
	r = qmp_call(q, "qom-get", args, &v);
	if (!r && json_object_is_type(v, json_type_string) && strrchr(json_object_get_string(v), '/'))
		snprintf(bus, sizeof(bus), "%s", strrchr(json_object_get_string(v), '/') + 1);
	json_object_put(v);
	if (!r)
		r = get_number(q, path, "channel", &channel);
	if (!r)
		r = get_number(q, path, "scsi-id", &target);
	if (!r)
		r = get_number(q, path, "lun", &lun);
	if (r)
		return r;
	/* It becomes a word of the open pointer. */
	for (char *c = bus; *c; c++)
		if ((unsigned char)*c <= ' ')
			*c = '_';
	if (snprintf(l->address, sizeof(l->address), "%s:%u:%u:%u", bus, (unsigned)channel, (unsigned)target, (unsigned)lun) >=
	    (int)sizeof(l->address))
		return vol_fail(NULL, -EPROTO, "the name of bus %s is too long", bus);
	return 0;
}

/* The disk among what query-block tells. */
static int check_disk(struct json_object *disks, const char *id, const struct link_info *l)
{
	struct json_object *in, *image;

	for (size_t i = 0; json_object_is_type(disks, json_type_array) && i < json_object_array_length(disks); i++) {
		struct json_object *o = json_object_array_get_idx(disks, i);

		if (!json_get(o, "inserted", json_type_object, &in) || strcmp(json_str(in, "node-name"), id))
			continue;
		if (!json_get(in, "image", json_type_object, &image) || strcmp(json_str(image, "filename"), l->device))
			return vol_fail(NULL, -ENXIO, "the disk that QEMU has is not %s", l->device);
		if (json_u64(image, "virtual-size") != l->size)
			return vol_fail(NULL, -ENXIO, "the disk that QEMU has is of %llu bytes, not %llu",
					(unsigned long long)json_u64(image, "virtual-size"), (unsigned long long)l->size);
		if (json_flag(in, "ro") != l->readonly)
			return vol_fail(NULL, -ENXIO, "the disk that QEMU has is %s", l->readonly ? "writable" : "read-only");
		return 0;
	}
	return vol_fail(NULL, -ENXIO, "QEMU has taken the drive, and does not have it");
}

static int verify(const struct server *s, struct link_info *l)
{
	struct json_object *disks = NULL;
	char id[ID_SIZE];
	struct qmp *q;
	int r = qmp_open(s->qmp, false, &q);

	if (r)
		return r;
	drive_id(l, id);
	r = qmp_call(q, "query-block", NULL, &disks);
	if (!r)
		r = check_disk(disks, id, l);
	if (!r)
		r = find_address(q, id, l);
	json_object_put(disks);
	qmp_close(q);
	return r;
}

static int unplug(const struct server *s, const struct link_info *l)
{
	struct json_object *args, *items;
	bool there = false;
	char id[ID_SIZE];
	uint64_t began;
	struct qmp *q;
	int r = qmp_open(s->qmp, true, &q);

	if (r == -ENOTCONN || r == -ECONNRESET)
		return vm_has_ended(l->vm, l->vm_began) ? 0 : vol_fail(NULL, -ETIMEDOUT, "VM %s runs, as process %d, but does not serve %s",
								     s->name, (int)l->vm, s->qmp);
	if (r)
		return r;
	if (!vol_process(qmp_pid(q), NULL, &began))
		began = 0;
	drive_id(l, id);
	r = list(q, "/machine/peripheral", &items);
	for (size_t i = 0; !r && i < json_object_array_length(items); i++)
		there |= !strcmp(json_str(json_object_array_get_idx(items, i), "name"), id);
	if (!r)
		json_object_put(items);
	if (!r && there) {
		args = json_object_new_object();
		json_set_str(args, "id", id);
		r = qmp_call(q, "device_del", args, NULL);
		/* Refused: somebody has asked for it before, and it is gone already or soon. */
		if (!r || r == -EREMOTEIO)
			r = qmp_wait_deleted(q, id);
	}
	if (!r)
		r = blockdev_del(q, id);
	if (r == -ECONNRESET && qmp_pid(q) > 0 && vm_has_ended(qmp_pid(q), began))
		r = 0;
	qmp_close(q);
	return r;
}

static int resize(const struct server *s, const struct link_info *l)
{
	struct json_object *args = json_object_new_object();
	char id[ID_SIZE];
	struct qmp *q;
	int r = qmp_open(s->qmp, false, &q);

	if (r) {
		json_object_put(args);
		return r;
	}
	drive_id(l, id);
	json_set_str(args, "node-name", id);
	json_set_u64(args, "size", l->size);
	r = qmp_call(q, "block_resize", args, NULL);
	qmp_close(q);
	return r;
}

/* ---- or by libvirt ------------------------------------------------------------ */

int vm_ready(const struct server *s) { return s->domain[0] ? virt_ready(s) : ready(s); }
int vm_plug(const struct server *s, struct link_info *l, unsigned sector)
{
	return s->domain[0] ? virt_plug(s, l, sector) : plug_disk(s, l, sector);
}
int vm_verify(const struct server *s, struct link_info *l) { return s->domain[0] ? virt_verify(s, l) : verify(s, l); }
int vm_unplug(const struct server *s, const struct link_info *l) { return s->domain[0] ? virt_unplug(s, l) : unplug(s, l); }
int vm_resize(const struct server *s, const struct link_info *l) { return s->domain[0] ? virt_resize(s, l) : resize(s, l); }

/* ---- its process --------------------------------------------------------------- */

bool vm_runs(const struct link_info *l)
{
	uint64_t began;

	return l->vm > 0 && vol_process(l->vm, NULL, &began) && began == l->vm_began;
}
