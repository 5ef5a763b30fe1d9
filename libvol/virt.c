// SPDX-License-Identifier: LGPL-2.1-or-later
/* Drives of domains of libvirt. virt.h tells. */
#include "virt.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "child.h"
#include "vm.h"

#define TEXT_MAX (64u << 10)
#define TARGETS 256u /* of a virtio-scsi controller; a drive is LUN 0 of one */
#define WAIT_MS 50

/* ---- virsh ------------------------------------------------------------------- */

struct domain { const char *name; bool finish; int lock; char text[TEXT_MAX]; };

/* The last of its lines says why. */
static const char *reason(const char *said)
{
	const char *why = said, *next;

	while ((next = strchr(why, '\n')))
		why = next + 1;
	return !strncmp(why, "error: ", 7) ? why + 7 : why;
}

#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* One command; what it says is in d->text.  -EREMOTEIO: it failed; -ETIMEDOUT: it does not answer. */
static int virsh(struct domain *d, const char *command, const char *const *words, const char *input)
{
	char *argv[16] = { "virsh", "-c", "qemu:///system", "-q", (char *)command, "--domain", (char *)d->name };
	struct child c = { .input = input ? input : "", .seconds = vol_server_timeout(), .finish = d->finish, .keep = d->lock,
			   .text = d->text, .size = sizeof(d->text) };
	char why[768];
	int r;

	for (unsigned i = 7; words && *words && i < 15; i++)
		argv[i] = (char *)*words++;
	r = child_run(argv, &c);
	if (r == -ETIMEDOUT)
		return vol_fail(NULL, r, "domain %s: libvirt has not done '%s' within %u seconds", d->name, command, c.seconds);
	if (!r || r == -EINTR)
		return r;
	snprintf(why, sizeof(why), "%s", reason(vol_error(NULL)));
	return vol_fail(NULL, -EREMOTEIO, "domain %s: %s", d->name, why);
}

/* What these are in its description, as lines of ` name="value"`. */
static int look(struct domain *d, const char *xpath)
{
	return virsh(d, "dumpxml", WORDS("--xpath", xpath), NULL);
}

static bool says(const struct domain *d, const char *attribute, const char *value)
{
	char line[96];

	snprintf(line, sizeof(line), " %s=\"%s\"\n", attribute, value);
	return strstr(d->text, line);
}

static int begin(const struct server *s, bool finish, bool lock, struct domain **out)
{
	struct domain *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	d->name = s->domain;
	d->finish = finish;
	d->lock = -1;
	r = lock ? vol_runtime_lock_within(s->domain, "domain", vol_server_timeout() + 2, &d->lock) : 0;
	if (r)
		free(d);
	else
		*out = d;
	return r;
}

static void done(struct domain *d)
{
	if (d->lock >= 0)
		close(d->lock);
	free(d);
}

/* ---- its process --------------------------------------------------------------- */

static void pid_path(const char *domain, char *path, size_t size)
{
	const char *e = getenv("VD_LIBVIRT_DIR");

	snprintf(path, size, "%s/%s.pid", e && *e ? e : "/run/libvirt/qemu", domain);
}

static bool process_of(const char *domain, pid_t *pid, uint64_t *began)
{
	char path[512], text[32] = "";
	ssize_t n;
	int fd;

	pid_path(domain, path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = 0;
	*pid = atoi(text);
	return *pid > 0 && vol_process(*pid, NULL, began);
}

/* ---- where a drive goes --------------------------------------------------------- */

struct place { unsigned controller, target; char name[8]; };

/* sda to sdz, sdaa to sdzz: how it is called in the domain's description, and nowhere else. */
static void disk_name(unsigned n, char name[8])
{
	if (n < 26)
		snprintf(name, 8, "sd%c", 'a' + n);
	else
		snprintf(name, 8, "sd%c%c", 'a' + (n / 26 - 1) % 26, 'a' + n % 26);
}

/* It runs, and has a controller for it.  libvirt would add one of another kind by itself. */
static int find_controller(const struct server *s, struct domain *d, struct place *p)
{
	const char *at;
	unsigned n = 0;
	int r = look(d, "/domain/@id | /domain/devices/controller[@type='scsi'][starts-with(@model,'virtio-')]/@index");

	if (r)
		return r;
	if (!strstr(d->text, " id=\""))
		return vol_fail(NULL, -ENOTCONN, "VM %s is not running: domain %s is shut off", s->name, s->domain);
	if (*s->bus) {
		p->controller = (unsigned)atoi(s->bus);
		return says(d, "index", s->bus) ? 0 :
		       vol_fail(NULL, -ENODEV, "domain %s of VM %s has no virtio-scsi controller %s", s->domain, s->name, s->bus);
	}
	for (at = d->text; (at = strstr(at, " index=\"")); at++, n++)
		p->controller = (unsigned)atoi(at + 8);
	if (!n)
		return vol_fail(NULL, -ENODEV, "domain %s of VM %s has no virtio-scsi controller\nshut it off, and put in its description (virsh edit %s): "
				"<controller type='scsi' model='virtio-scsi'/>", s->domain, s->name, s->domain);
	return n == 1 ? 0 : vol_fail(NULL, -ENOTUNIQ, "domain %s of VM %s has %u virtio-scsi controllers; say which: vdserver add --bus",
				     s->domain, s->name, n);
}

static int find_place(const struct server *s, struct domain *d, struct place *p)
{
	char number[8], xpath[256];
	unsigned n = 0;
	int r = find_controller(s, d, p);

	if (r)
		return r;
	snprintf(xpath, sizeof(xpath), "/domain/devices/*/address[@type='drive'][@controller='%u']/@target | /domain/devices/disk/target/@dev",
		 p->controller);
	r = look(d, xpath);
	if (r)
		return r;
	for (p->target = 0; p->target < TARGETS; p->target++) {
		snprintf(number, sizeof(number), "%u", p->target);
		if (!says(d, "target", number))
			break;
	}
	do
		disk_name(n++, p->name);
	while (n < 26 * 27 && says(d, "dev", p->name));
	return p->target < TARGETS && n < 26 * 27 ? 0 :
	       vol_fail(NULL, -ENOSPC, "no address is free on controller %u of domain %s", p->controller, s->domain);
}

/* ---- what it has ------------------------------------------------------------------ */

struct disk { bool there, readonly; char source[128], name[16]; unsigned controller, bus, target, unit; };

static int find_disk(struct domain *d, const struct link_info *l, struct disk *k)
{
	char uuid[VOL_UUID_TEXT], xpath[512], name[16], value[128];
	char *line, *rest;
	unsigned n;
	int r;

	memset(k, 0, sizeof(*k));
	vol_uuid_text(l->volume_uuid, uuid);
#define DISK "/domain/devices/disk[serial='%s']"
	snprintf(xpath, sizeof(xpath), DISK "/source/@dev | " DISK "/target/@dev | " DISK "/readonly | " DISK "/address/@*", uuid, uuid, uuid, uuid);
#undef DISK
	r = look(d, xpath);
	for (line = r ? NULL : strtok_r(d->text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		k->readonly |= !strncmp(line, "<readonly", 9);
		if (sscanf(line, " %15[a-z]=\"%127[^\"]\"", name, value) != 2)
			continue;
		n = (unsigned)atoi(value);
		if (!strcmp(name, "dev") && value[0] == '/')
			snprintf(k->source, sizeof(k->source), "%s", value);
		else if (!strcmp(name, "dev"))
			k->there = snprintf(k->name, sizeof(k->name), "%s", value) > 0;
		else if (!strcmp(name, "controller"))
			k->controller = n;
		else if (!strcmp(name, "bus"))
			k->bus = n;
		else if (!strcmp(name, "target"))
			k->target = n;
		else if (!strcmp(name, "unit"))
			k->unit = n;
	}
	return r;
}

/* The same, when libvirt has done what it was at: this is done after that, and changes nothing (V2). */
static int find_disk_surely(struct domain *d, const struct link_info *l, struct disk *k)
{
	int r = virsh(d, "dommemstat", NULL, NULL);

	return r ? r : find_disk(d, l, k);
}

/* ---- plugging --------------------------------------------------------------------- */

int virt_ready(const struct server *s)
{
	struct domain *d;
	struct place p;
	int r = begin(s, false, false, &d);

	if (r)
		return r;
	r = find_controller(s, d, &p);
	done(d);
	return r;
}

static int attach(struct domain *d, const struct link_info *l, const struct place *p, unsigned sector)
{
	char uuid[VOL_UUID_TEXT], *xml;
	int r;

	if (strpbrk(l->device, "<>&'\""))
		return vol_fail(NULL, -EINVAL, "%s has a character in its name that a domain's description cannot have", l->device);
	vol_uuid_text(l->volume_uuid, uuid);
	/* What the guest flushed is with the pool: no page cache of QEMU's in between. */
	if (asprintf(&xml, "<disk type='block' device='disk'>\n"
		     "  <driver name='qemu' type='raw' cache='none' discard='unmap'/>\n"
		     "  <source dev='%s'/>\n"
		     "  <target dev='%s' bus='scsi'/>\n%s"
		     "  <serial>%s</serial>\n"
		     "  <blockio logical_block_size='%u' physical_block_size='%u'/>\n"
		     "  <address type='drive' controller='%u' bus='0' target='%u' unit='0'/>\n"
		     "</disk>\n", l->device, p->name, l->readonly ? "  <readonly/>\n" : "", uuid, sector, (unsigned)VD_BLOCK,
		     p->controller, p->target) < 0)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	r = virsh(d, "attach-device", WORDS("--file", "/dev/stdin", "--live"), xml);
	free(xml);
	return r;
}

int virt_plug(const struct server *s, struct link_info *l, unsigned sector)
{
	char why[1024], path[512];
	struct domain *d;
	struct place p;
	struct disk k;
	int r = begin(s, false, true, &d);

	if (r)
		return r;
	r = find_place(s, d, &p);
	if (!r && !process_of(s->domain, &l->vm, &l->vm_began)) {
		l->vm = 0;
		pid_path(s->domain, path, sizeof(path));
		r = vol_fail(NULL, -ESRCH, "the process of domain %s cannot be seen from here: %s does not tell it", s->domain, path);
	}
	if (!r) {
		r = attach(d, l, &p, sector);
		if (r) {
			snprintf(why, sizeof(why), "%s", vol_error(NULL));
			d->finish = true;
			if (r != -ETIMEDOUT && !find_disk_surely(d, l, &k) && !k.there)
				l->vm = 0; /* V3 */
			vol_fail(NULL, r, "%s", why);
		}
	}
	done(d);
	return r;
}

static int check_disk(struct domain *d, const struct link_info *l, const struct disk *k)
{
	unsigned long long size = 0;
	char *number;
	int r;

	if (!k->there)
		return vol_fail(NULL, -ENXIO, "libvirt has taken the drive, and domain %s does not have it", d->name);
	if (strcmp(k->source, l->device))
		return vol_fail(NULL, -ENXIO, "the disk that domain %s has is not %s", d->name, l->device);
	if (k->readonly != l->readonly)
		return vol_fail(NULL, -ENXIO, "the disk that domain %s has is %s", d->name, l->readonly ? "writable" : "read-only");
	/* Of QEMU, which has it open.  The word before the number may be in any language. */
	r = virsh(d, "domblkinfo", WORDS("--device", k->name), NULL);
	if (r)
		return r;
	number = strpbrk(d->text, "0123456789");
	if (number)
		size = strtoull(number, NULL, 10);
	return size == l->size ? 0 : vol_fail(NULL, -ENXIO, "the disk that domain %s has is of %llu bytes, not %llu", d->name, size,
					      (unsigned long long)l->size);
}

int virt_verify(const struct server *s, struct link_info *l)
{
	struct domain *d;
	struct disk k;
	int r = begin(s, false, false, &d);

	if (r)
		return r;
	r = find_disk(d, l, &k);
	if (!r)
		r = check_disk(d, l, &k);
	if (!r)
		snprintf(l->address, sizeof(l->address), "scsi%u.0:%u:%u:%u", k.controller, k.bus, k.target, k.unit);
	done(d);
	return r;
}

/* ---- unplugging ------------------------------------------------------------------- */

/* Until it has gone, however often that must be said. */
static int take_out(struct domain *d, const struct link_info *l)
{
	int64_t end = 0;
	char why[768] = "it says that it has done so";
	struct disk k;
	int r;

	for (;;) {
		r = find_disk_surely(d, l, &k);
		if (r || !k.there)
			return r;
		if (end && vol_now_ms() > end)
			return vol_fail(NULL, -EBUSY, "domain %s does not let go of the drive: %s", d->name, why);
		end = end ? end : vol_now_ms() + vol_server_timeout() * 1000ll;
		r = virsh(d, "detach-disk", WORDS("--target", k.name, "--live"), NULL);
		if (r && r != -EREMOTEIO)
			return r;
		if (r)
			snprintf(why, sizeof(why), "%s", vol_error(NULL));
		vol_nap(WAIT_MS);
	}
}

int virt_unplug(const struct server *s, const struct link_info *l)
{
	char why[1024];
	struct domain *d;
	uint64_t began;
	pid_t pid;
	int r = 0;

	if (process_of(s->domain, &pid, &began)) {
		r = begin(s, true, true, &d);
		if (r)
			return r;
		r = take_out(d, l);
		done(d);
	}
	if (!r && (pid == l->vm || !vm_runs(l)))
		return 0;
	if (r && process_of(s->domain, &pid, &began))
		return r;
	/* With its process all that QEMU had open is closed (V4). */
	snprintf(why, sizeof(why), "%s", r ? vol_error(NULL) : "libvirt does not know of it");
	return vm_has_ended(l->vm, l->vm_began) ? 0 : vol_fail(NULL, r ? r : -EBUSY, "VM %s runs, as process %d: %s", s->name, (int)l->vm, why);
}

int virt_resize(const struct server *s, const struct link_info *l)
{
	char size[32];
	struct domain *d;
	struct disk k;
	int r = begin(s, false, true, &d);

	if (r)
		return r;
	r = find_disk(d, l, &k);
	if (!r && !k.there)
		r = vol_fail(NULL, -ENXIO, "domain %s does not have the drive", s->domain);
	snprintf(size, sizeof(size), "%llub", (unsigned long long)l->size);
	if (!r)
		r = virsh(d, "blockresize", WORDS("--path", k.name, "--size", size), NULL);
	done(d);
	return r;
}
