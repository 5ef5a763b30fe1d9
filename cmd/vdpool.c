// SPDX-License-Identifier: GPL-2.0-or-later
/* vdpool: pools. One function a subcommand, and a table of them at the end. */
#include "common.h"

#include <stdarg.h>
#include <stdlib.h>

#include "../libvol/find.h"
#include "../libvol/link-list.h"

static char *size_text, *sector_text, *journal_text, *policy, *discards, *thresholds, *readonly_text, *grow_by, *grow_to;
static int force, quick, repair, all, complete, activate_readonly;
static struct json_object *attrs;
static bool attrs_given;

#define FORCE { "force", 'f', POPT_ARG_NONE, &force, 0, "also over what is on a member; it is wiped", NULL }
#define FILE_SIZE { "size", 'L', POPT_ARG_STRING, &size_text, 0, "files that do not exist or are empty get this size, sparse", "SIZE" }
#define GROWTH \
	{ "grow-by", 0, POPT_ARG_STRING, &grow_by, 0, "extend a file by so much when space is short; 0: do not", "SIZE" }, \
	{ "grow-to", 0, POPT_ARG_STRING, &grow_to, 0, "but not to a pool of more; 0: no limit", "SIZE" }
#define POLICY { "policy", 0, POPT_ARG_STRING, &policy, 0, "writes to a full pool wait for space, or fail at once", "queue|error" }
#define DISCARDS { "discards", 0, POPT_ARG_STRING, &discards, 0, "space that is free again is discarded on the members, or not", "passdown|nopassdown" }
#define THRESHOLDS { "thresholds", 0, POPT_ARG_STRING, &thresholds, 0, "up to four per cents of use that are reported", "PERCENT[,...]" }

static int parse_size(const char *text, uint64_t *size)
{
	int r = text ? vol_parse_size(text, size, NULL) : 0;

	return r ? cmd_failed(NULL, r) : 0;
}

/* "80,90.5" as per mille. */
static int parse_thresholds(struct json_object *list)
{
	const char *p = thresholds;
	char *end;

	for (unsigned n = 0; *p; n++) {
		double percent = strtod(p, &end);
		if (end == p || (*end && *end != ',') || !(percent >= 0 && percent <= 100) || n == 4)
			return cmd_usage("--thresholds %s: wanted up to four per cents, such as 80,90,95", thresholds);
		json_object_array_add(list, json_object_new_uint64((uint64_t)(percent * 10 + 0.5)));
		p = end + (*end == ',');
	}
	return 0;
}

static int check_policy(void)
{
	uint64_t size;
	int code = parse_size(grow_by, &size);

	if (!code)
		code = parse_size(grow_to, &size);
	if (code)
		return code;
	if (policy && strcmp(policy, "queue") && strcmp(policy, "error"))
		return cmd_usage("--policy %s: the policy is queue or error", policy);
	if (discards && strcmp(discards, "passdown") && strcmp(discards, "nopassdown"))
		return cmd_usage("--discards %s: wanted passdown or nopassdown", discards);
	return 0;
}

static void set_size(struct json_object *q, const char *key, const char *text) /* which check_policy() has seen */
{
	uint64_t size;

	if (text && !parse_size(text, &size))
		json_set_u64(q, key, size);
}

static int set_pool(struct vol_pool *pool)
{
	struct json_object *q = cmd_request("pool-set"), *list;

	if (thresholds) {
		list = json_object_new_array();
		json_set(q, "thresholds", list);
		if (parse_thresholds(list)) {
			json_object_put(q);
			return -EINVAL;
		}
	}
	if (policy)
		json_set_str(q, "policy", policy);
	if (discards)
		json_set_str(q, "discards", discards);
	set_size(q, "grow_by", grow_by);
	set_size(q, "grow_to", grow_to);
	return cmd_call(pool, q, NULL, NULL, NULL);
}

/* ---- create, add --------------------------------------------------------- */

static const struct poptOption create_options[] = {
	FILE_SIZE,
	{ "sector", 0, POPT_ARG_STRING, &sector_text, 0, "logical sector size; the default is 512 where the members can", "512|4096" },
	{ "journal", 0, POPT_ARG_STRING, &journal_text, 0, "size of the journal", "SIZE" },
	POLICY, DISCARDS, THRESHOLDS, GROWTH, FORCE,
	CMD_CHANGE_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_TABLEEND
};

static int create(const struct cmd_args *a)
{
	struct vol_pool_spec spec = {
		.name = a->arg[0], .path = a->arg + 1, .npaths = a->n - 1, .error_if_full = policy && policy[0] == 'e',
		.no_discards = discards && discards[0] == 'n', .force = force, .test = cmd_opt.test,
	};
	char text[VOL_UUID_TEXT];
	struct vol_pool *pool;
	uint8_t uuid[16];
	int code, r;

	code = parse_size(size_text, &spec.file_size);
	if (!code)
		code = parse_size(journal_text, &spec.journal_size);
	if (!code)
		code = check_policy();
	if (!code && thresholds) {
		struct json_object *list = json_object_new_array();
		code = parse_thresholds(list); /* before anything is made */
		json_object_put(list);
	}
	if (!code && sector_text && strcmp(sector_text, "512") && strcmp(sector_text, "4096"))
		code = cmd_usage("--sector %s: the size is 512 or 4096", sector_text);
	if (code)
		return code;
	spec.sector_size = sector_text ? (uint32_t)atoi(sector_text) : 0;
	r = vol_pool_create(&spec, uuid);
	if (r)
		return cmd_failed(NULL, r);
	vol_uuid_text(uuid, text);
	if (cmd_opt.test) {
		cmd_say("pool %s would be made of %u member%s", spec.name, spec.npaths, spec.npaths == 1 ? "" : "s");
		return 0;
	}
	if (thresholds || grow_by || grow_to) {
		pool = cmd_open(text, 0, &code);
		if (!pool)
			return code;
		code = cmd_close(pool, cmd_exit_code(set_pool(pool)));
		if (code)
			return code;
	}
	cmd_say("pool %s made of %u member%s (%s)", spec.name, spec.npaths, spec.npaths == 1 ? "" : "s", text);
	return 0;
}

static const struct poptOption add_options[] = {
	FILE_SIZE, FORCE,
	CMD_CHANGE_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_TABLEEND
};

static int add(const struct cmd_args *a)
{
	char name[VOL_NAME_SIZE];
	struct vol_pool *pool;
	uint64_t size = 0;
	int code, r = 0;

	code = cmd_parse_pool(a->arg[0], name);
	if (!code)
		code = parse_size(size_text, &size);
	for (unsigned i = 2; i < a->n && !code; i++)
		for (unsigned k = 1; k < i && !code; k++)
			if (vol_same_file(a->arg[k], a->arg[i]))
				code = cmd_usage("%s and %s are the same; a pool has each member once", a->arg[k], a->arg[i]);
	pool = code ? NULL : cmd_open(name, 0, &code);
	if (!pool)
		return code;
	for (unsigned i = 1; i < a->n && !r; i++) {
		struct json_object *q = cmd_request("pool-add"), *done;
		char *path = cmd_absolute(a->arg[i]);
		json_set_str(q, "path", path);
		free(path);
		if (size)
			json_set_u64(q, "size", size);
		json_set_bool(q, "force", force);
		r = cmd_call(pool, q, NULL, NULL, &done);
		if (r)
			break;
		cmd_say(cmd_opt.test ? "%s of %s would be added to pool %s" : "%s of %s added to pool %s",
			json_str(done, "path"), cmd_size(json_u64(done, "size")), vol_pool_name(pool));
		json_object_put(done);
	}
	return cmd_close(pool, cmd_exit_code(r));
}

static const struct poptOption grow_options[] = {
	{ "size", 'L', POPT_ARG_STRING, &size_text, 0, "of a file: extend it to this size, or by it, first", "[+]SIZE" },
	CMD_CHANGE_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_TABLEEND
};

static int grow(const struct cmd_args *a)
{
	struct json_object *q, *done, *list;
	char name[VOL_NAME_SIZE], sign = 0;
	struct vol_pool *pool;
	uint64_t size = 0;
	int code, r;

	code = cmd_parse_pool(a->arg[0], name);
	r = !code && size_text ? vol_parse_size(size_text, &size, &sign) : 0;
	if (r)
		return cmd_failed(NULL, r);
	if (!code && sign == '-')
		code = cmd_usage("--size %s: a member does not become smaller", size_text);
	pool = code ? NULL : cmd_open(name, 0, &code);
	if (!pool)
		return code;
	q = cmd_request("pool-grow");
	if (a->n > 1) {
		char *path = strspn(a->arg[1], "0123456789") == strlen(a->arg[1]) ? strdup(a->arg[1]) : cmd_absolute(a->arg[1]);
		json_set_str(q, "member", path);
		free(path);
	}
	if (size_text)
		json_set_u64(q, sign ? "grow" : "size", (size + 4095) & ~(uint64_t)4095);
	r = cmd_call(pool, q, NULL, NULL, &done);
	if (!r && json_get(done, "grown", json_type_array, &list)) {
		for (size_t i = 0; i < json_object_array_length(list); i++) {
			struct json_object *m = json_object_array_get_idx(list, i);
			cmd_say(cmd_opt.test ? "pool %s: %s would grow from %s to %s" : "pool %s: %s grown from %s to %s",
				vol_pool_name(pool), json_str(m, "path"), cmd_size(json_u64(m, "before")), cmd_size(json_u64(m, "size")));
		}
		if (!json_object_array_length(list))
			cmd_say("pool %s: nothing is larger than it was", vol_pool_name(pool));
	}
	if (!r)
		json_object_put(done);
	return cmd_close(pool, cmd_exit_code(r));
}

/* ---- ls, show ------------------------------------------------------------ */

static const struct poptOption report_options[] = {
	CMD_REPORT_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_TABLEEND
};

static const struct cmd_field pool_fields[] = {
	{ "name", "Pool", CMD_TEXT, "name" },
	{ "members", "Members", CMD_NUMBER, "number of members" },
	{ "missing", "Missing", CMD_NUMBER, "members that are missing or too short" },
	{ "mode", "Mode", CMD_TEXT, "rw, out-of-space, read-only, failed; or unreadable" },
	{ "size", "Size", CMD_SIZE, "space of all members" },
	{ "used", "Used", CMD_SIZE, "space in use, metadata too" },
	{ "free", "Free", CMD_SIZE, "space for data of any volume" },
	{ "reserved", "Reserved", CMD_SIZE, "space kept for volumes with reservations, not taken yet" },
	{ "percent", "Use%", CMD_PERCENT, "used, of size" },
	{ "metadata", "Meta", CMD_SIZE, "space used by metadata, all copies, and the journal" },
	{ "policy", "Policy", CMD_TEXT, "queue or error: what a write to the full pool does" },
	{ "discards", "Discards", CMD_TEXT, "passdown or nopassdown: whether space that is free again is discarded on the members" },
	{ "sector", "Sector", CMD_NUMBER, "logical sector size" },
	{ "active", "Active", CMD_TEXT, "who serves its volumes: kernel, server or no" },
	{ "server", "Server", CMD_TEXT, "pid of the server that owns it" },
	{ "created", "Created", CMD_TIME, "when it was made, UTC" },
	{ "uuid", "UUID", CMD_TEXT, "UUID" },
	{ "devices", "Devices", CMD_TEXT, "members' paths" },
	{ NULL, NULL, CMD_TEXT, NULL },
};

static struct json_object *pool_row(struct json_object *info)
{
	static const char *const same[] = { "name", "uuid", "mode", "size", "used", "free", "reserved", "metadata", "policy", "discards",
		"created", "active" };
	struct json_object *row = json_object_new_object(), *members, *server, *v;
	char devices[4096] = "", pid[32];
	size_t n = 0;

	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
		if (json_object_object_get_ex(info, same[i], &v))
			json_set(row, same[i], json_object_get(v));
	json_set_u64(row, "sector", json_u64(info, "sector_size"));
	json_set_u64(row, "missing", json_u64(info, "members_missing"));
	json_object_object_add(row, "percent", json_object_new_double(json_u64(info, "size") ?
		100.0 * (double)json_u64(info, "used") / (double)json_u64(info, "size") : 0));
	if (json_get(info, "members", json_type_array, &members)) {
		json_set_u64(row, "members", json_object_array_length(members));
		for (size_t i = 0; i < json_object_array_length(members) && n < sizeof(devices); i++) {
			const char *path = json_str(json_object_array_get_idx(members, i), "path");
			n += (size_t)snprintf(devices + n, sizeof(devices) - n, "%s%s", n ? "," : "", *path ? path : "missing");
		}
	}
	json_set_str(row, "devices", devices);
	if (json_get(info, "server", json_type_object, &server)) {
		snprintf(pid, sizeof(pid), "%llu", (unsigned long long)json_u64(server, "pid"));
		json_set_str(row, "server", pid);
	}
	return row;
}

static int pool_info(const char *name, struct json_object **info)
{
	struct vol_pool *pool;
	int code = 0, r;

	pool = cmd_open(name, VOL_READONLY, &code);
	if (!pool)
		return code;
	r = cmd_call(pool, cmd_request("pool-info"), NULL, NULL, info);
	return cmd_close(pool, cmd_exit_code(r));
}

static int ls_found(struct cmd_report *report)
{
	struct vol_found *found;
	char uuid[VOL_UUID_TEXT];
	size_t n;
	int code = 0, r;

	r = vol_find_members(&found, &n);
	if (r)
		return cmd_failed(NULL, r);
	for (size_t i = 0; i < n; i++) {
		struct json_object *info, *row;
		bool seen = false;
		if (found[i].error) {
			fprintf(stderr, "%s: warning: %s, listed as a member, %s\n", program_invocation_short_name,
				found[i].path, found[i].error == -ENODATA ? "carries no label of a pool" :
				found[i].error == -EBADMSG ? "has a damaged label" : strerror(-found[i].error));
			continue;
		}
		for (size_t k = 0; k < i && !seen; k++)
			seen = !found[k].error && !memcmp(found[k].pool, found[i].pool, 16);
		if (seen)
			continue;
		vol_uuid_text(found[i].pool, uuid);
		r = pool_info(uuid, &info);
		if (!r) {
			row = pool_row(info);
			json_object_put(info);
		} else {
			row = json_object_new_object();
			json_set_str(row, "name", found[i].pool_name);
			json_set_str(row, "uuid", uuid);
			json_set_str(row, "mode", "unreadable");
		}
		code = code ? code : r;
		cmd_report_add(report, row);
	}
	vol_found_free(found, n);
	return code;
}

static int ls(const struct cmd_args *a)
{
	struct cmd_report report;
	char name[VOL_NAME_SIZE];
	int code, r;

	code = cmd_report_init(&report, "pool", pool_fields, "name,members,missing,mode,size,used,free,percent,server");
	if (code)
		return code;
	if (!a->n)
		code = ls_found(&report);
	for (unsigned i = 0; i < a->n; i++) {
		struct json_object *info;
		r = cmd_parse_pool(a->arg[i], name);
		if (!r)
			r = pool_info(name, &info);
		if (!r) {
			cmd_report_add(&report, pool_row(info));
			json_object_put(info);
		}
		code = code ? code : r;
	}
	cmd_report_print(&report);
	return code;
}

static void line(const char *what, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void line(const char *what, const char *fmt, ...)
{
	va_list ap;

	printf("  %-16s ", what);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

static void show_owner(struct json_object *info)
{
	struct json_object *server, *owner, *h;

	if (json_get(info, "server", json_type_object, &server)) {
		line("Server", "runs, pid %llu%s%s", (unsigned long long)json_u64(server, "pid"),
		     json_str(server, "nbd")[0] ? ", NBD socket " : "", json_str(server, "nbd"));
		return;
	}
	if (!strcmp(json_str(info, "active"), "kernel")) {
		line("Kernel", "has it open, as %s", json_str(info, "device"));
		return;
	}
	line("Server", "none");
	if (json_u64(info, "members_missing"))
		line("Active", "no; it will be when its missing members are there, and 'vdpool activate --readonly %s' opens it for reading",
		     json_str(info, "name"));
	if (!json_get(info, "last_owner", json_type_object, &owner) || !json_get(owner, "holder", json_type_object, &h))
		return;
	line(json_flag(owner, "in_use") ? "Owner" : "Last owner", "%s, pid %llu, on %s%s", json_str(h, "purpose"),
	     (unsigned long long)json_u64(h, "pid"), json_str(h, "hostname"),
	     json_flag(info, "beside_owner") ? " (has it open; this is its last checkpoint)" :
	     json_flag(owner, "in_use")	    ? " (did not close it in order)" : "");
}

static void show_text(struct json_object *info)
{
	struct json_object *list;
	uint64_t used = json_u64(info, "used"), size = json_u64(info, "size"), spoken_for = used + json_u64(info, "reserved");
	char text[128] = "";
	size_t n = 0;

	printf("Pool %s\n", json_str(info, "name"));
	line("UUID", "%s", json_str(info, "uuid"));
	line("Mode", "%s%s", json_str(info, "mode"),
	     json_u64(info, "members_missing") ? " (members are missing: it can be read, not changed)" : "");
	if (json_flag(info, "read_only_feature"))
		line("Later version", "of vd gave it a feature with which this one can only read it, not change it");
	if (json_flag(info, "rolled_back"))
		line("Rolled back", "the newest superblock is lost on every member; this is the state before it");
	if (json_flag(info, "damaged"))
		line("Damaged", "metadata is lost in every copy: the pool can be read, not changed; vd(7), DAMAGE");
	if (json_get(info, "lost", json_type_array, &list)) {
		for (size_t i = 0; i < json_object_array_length(list); i++)
			line("Lost", "%s", json_str(json_object_array_get_idx(list, i), "text"));
		if (json_u64(info, "lost_not_listed"))
			line("Lost", "and %llu more", (unsigned long long)json_u64(info, "lost_not_listed"));
	}
	line("Size", "%s", cmd_size(size));
	line("Used", "%s (%.2f %%), of that metadata %s", cmd_size(used), size ? 100.0 * (double)used / (double)size : 0.0,
	     cmd_size(json_u64(info, "metadata")));
	line("Free for data", "%s (%s are kept for metadata)", cmd_size(json_u64(info, "free")), cmd_size(json_u64(info, "reserve")));
	if (json_u64(info, "reserved"))
		line("Reserved", "%s, for volumes that have not taken it yet", cmd_size(json_u64(info, "reserved")));
	if (json_get(info, "thresholds", json_type_array, &list))
		for (size_t i = 0; i < json_object_array_length(list); i++) {
			uint64_t t = json_object_get_uint64(json_object_array_get_idx(list, i));
			if (t)
				n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%.1f %%%s", n ? ", " : "", (double)t / 10,
						      size && spoken_for >= (uint64_t)((double)size * (double)t / 1000) ? " (passed)" : "");
		}
	line("Thresholds", "%s", n ? text : "none");
	if (json_u64(info, "grow_by")) {
		snprintf(text, sizeof(text), "%s", cmd_size(json_u64(info, "grow_by")));
		line("Growth", "a file is extended by %s when space is short%s%s", text, json_u64(info, "grow_to") ? ", up to a pool of " : "",
		     json_u64(info, "grow_to") ? cmd_size(json_u64(info, "grow_to")) : "");
	}
	line("When full", "%s", strcmp(json_str(info, "policy"), "error") ? "writes wait for space" : "writes fail at once");
	if (*json_str(info, "discards"))
		line("Discards", "space that is free again is %sdiscarded on the members", strcmp(json_str(info, "discards"), "nopassdown") ? "" : "not ");
	line("Sector size", "%llu", (unsigned long long)json_u64(info, "sector_size"));
	line("Journal", "%s, %s of it in use", cmd_size(json_u64(info, "journal")), cmd_size(json_u64(info, "journal_used")));
	line("Checkpoint", "generation %llu, incarnation %llu, epoch %llu, sequence %llu",
	     (unsigned long long)json_u64(info, "generation"), (unsigned long long)json_u64(info, "incarnation"),
	     (unsigned long long)json_u64(info, "epoch"), (unsigned long long)json_u64(info, "seq"));
	show_owner(info);
	if (!json_get(info, "members", json_type_array, &list))
		return;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *m = json_object_array_get_idx(list, i);
		snprintf(text, sizeof(text), "Member %zu", i);
		bool is_short = json_flag(m, "too_short");
		line(text, "%s%s, %s (%s)", is_short ? "TOO SHORT: " : "", json_flag(m, "missing") && !is_short ? "MISSING" : json_str(m, "path"),
		     cmd_size(json_u64(m, "size")), json_str(m, "uuid"));
	}
}

static int show(const struct cmd_args *a)
{
	struct json_object *out = json_object_new_object(), *reports = json_object_new_array();
	struct json_object *report = json_object_new_object(), *rows = json_object_new_array();
	char name[VOL_NAME_SIZE];
	int code = 0;

	json_set(out, "report", reports);
	json_object_array_add(reports, report);
	json_set(report, "pool", rows);
	for (unsigned i = 0; i < a->n; i++) {
		struct json_object *info;
		int r = cmd_parse_pool(a->arg[i], name);
		if (!r)
			r = pool_info(name, &info);
		code = code ? code : r;
		if (r)
			continue;
		if (!cmd_json())
			show_text(info);
		json_object_array_add(rows, info);
	}
	if (cmd_json())
		printf("%s\n", json_object_to_json_string_ext(out, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
								   JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(out);
	return code;
}

/* ---- check, dump ---------------------------------------------------------- */

static const struct poptOption check_options[] = {
	{ "quick", 0, POPT_ARG_NONE, &quick, 0, "members, records of volumes and roots only", NULL },
	{ "repair", 0, POPT_ARG_NONE, &repair, 0, "rewrite bad copies from good ones, give back what nothing refers to", NULL },
	CMD_CHANGE_OPTIONS,
	CMD_REPORT_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_TABLEEND
};

static const struct cmd_field fault_fields[] = {
	{ "fault", "Fault", CMD_TEXT, "node, copy, count, leak, order, record, range (of a volume, lost), more (of a volume), name, volumes (cannot be found), mapped, promised, member, used" },
	{ "volume", "Volume", CMD_TEXT, "volume it is about" },
	{ "id", "Id", CMD_NUMBER, "number of the volume" },
	{ "a", "A", CMD_NUMBER, "first number of the fault: block, offset in bytes" },
	{ "b", "B", CMD_NUMBER, "second number of the fault: length" },
	{ "member", "Member", CMD_NUMBER, "missing or too short: what the range is on" },
	{ "text", "What was found", CMD_TEXT, "in words" },
	{ NULL, NULL, CMD_TEXT, NULL },
};

static int on_faults(void *arg, struct json_object *part)
{
	struct json_object *list;

	if (json_get(part, "faults", json_type_array, &list))
		for (size_t i = 0; i < json_object_array_length(list); i++)
			cmd_report_add(arg, json_object_get(json_object_array_get_idx(list, i)));
	return 0;
}

static int check(const struct cmd_args *a)
{
	struct cmd_report report;
	struct json_object *q, *result;
	struct vol_pool *pool;
	char name[VOL_NAME_SIZE];
	uint64_t faults = 0, left_out = 0;
	bool was_damaged, still;
	int code, r;

	code = cmd_parse_pool(a->arg[0], name);
	if (!code)
		code = cmd_report_init(&report, "fault", fault_fields, cmd_json() ? "fault,volume,id,a,b,member,text" : "fault,text");
	pool = code ? NULL : cmd_open(name, repair ? VOL_REPAIR | VOL_ACCEPT : VOL_READONLY, &code);
	if (!pool)
		return code;
	q = cmd_request("pool-check");
	json_set_bool(q, "repair", repair && !cmd_opt.test); /* servers of earlier versions know no test of it */
	json_set_bool(q, "quick", quick);
	r = cmd_call(pool, q, on_faults, &report, &result);
	if (!r) {
		faults = json_u64(result, "faults");
		left_out = json_u64(result, "not_listed");
		was_damaged = json_flag(result, "was_damaged");
		still = json_flag(result, "damaged");
		json_object_put(result);
		cmd_report_print(&report);
		if (left_out)
			cmd_say("and %llu more", (unsigned long long)left_out);
		if (!cmd_json() && repair && was_damaged && !cmd_opt.test)
			cmd_say(still ? "pool %s stays read-only: not all is well; vd(7), DAMAGE" : "pool %s is not damaged any more", vol_pool_name(pool));
		if (!cmd_json() && faults)
			cmd_say("pool %s: %llu fault%s found%s", vol_pool_name(pool), (unsigned long long)faults,
				faults == 1 ? "" : "s", repair && cmd_opt.test ? "; nothing was repaired" : "");
		else if (!cmd_json())
			cmd_say("pool %s: no faults%s", vol_pool_name(pool), quick ? " found by a quick check" : "");
	}
	code = cmd_close(pool, cmd_exit_code(r));
	return code ? code : faults ? CMD_DAMAGED : CMD_OK;
}

static const struct cmd_field node_fields[] = {
	{ "volume", "Volume", CMD_NUMBER, "id of the volume whose mapping it is in; 0 for the pool's own trees" },
	{ "level", "Level", CMD_NUMBER, "0 for pages" },
	{ "kind", "Kind", CMD_TEXT, "index, extents, space, volume; lost: unreadable in every copy" },
	{ "block", "Block", CMD_NUMBER, "address of the first copy: member * 2^40 + block" },
	{ "copy", "Copy", CMD_NUMBER, "address of the second copy" },
	{ "generation", "Generation", CMD_NUMBER, "checkpoint that wrote it" },
	{ "entries", "Entries", CMD_NUMBER, "number of entries" },
	{ "key_lo", "From", CMD_NUMBER, "first key below it" },
	{ "key_hi", "To", CMD_NUMBER, "end of the keys below it" },
	{ "owner", "Owner", CMD_NUMBER, "id of the volume that wrote it" },
	{ NULL, NULL, CMD_TEXT, NULL },
};

static int on_nodes(void *arg, struct json_object *part)
{
	struct json_object *list;

	if (json_get(part, "nodes", json_type_array, &list))
		for (size_t i = 0; i < json_object_array_length(list); i++)
			cmd_report_add(arg, json_object_get(json_object_array_get_idx(list, i)));
	return 0;
}

static int dump(const struct cmd_args *a)
{
	struct json_object *result;
	struct cmd_report report;
	struct vol_pool *pool;
	char name[VOL_NAME_SIZE];
	uint64_t lost = 0;
	int code, r;

	code = cmd_parse_pool(a->arg[0], name);
	if (!code)
		code = cmd_report_init(&report, "node", node_fields, "volume,level,kind,block,copy,generation,entries,key_lo,key_hi");
	pool = code ? NULL : cmd_open(name, VOL_READONLY, &code);
	if (!pool)
		return code;
	r = cmd_call(pool, cmd_request("pool-dump"), on_nodes, &report, &result);
	if (!r) {
		lost = json_u64(result, "lost");
		json_object_put(result);
		cmd_report_print(&report);
	}
	if (lost)
		fprintf(stderr, "%s: pool %s: %llu of these cannot be read in any copy, and what is below them is not listed\n"
			"`vdpool check %s` tells what is lost\n", program_invocation_short_name, vol_pool_name(pool),
			(unsigned long long)lost, vol_pool_name(pool));
	code = cmd_close(pool, cmd_exit_code(r));
	return code ? code : lost ? CMD_DAMAGED : CMD_OK;
}

/* ---- set, forget ---------------------------------------------------------- */

static int on_set_option(int val, char *arg)
{
	int r = 0;

	if (val == 'A') {
		r = cmd_parse_attr(arg, attrs);
		attrs_given = true;
	}
	free(arg);
	return r;
}

static const struct poptOption set_options[] = {
	THRESHOLDS, POLICY, DISCARDS, GROWTH,
	{ "readonly", 0, POPT_ARG_STRING, &readonly_text, 0, "of a volume: may it be written?", "y|n" },
	{ "attr", 0, POPT_ARG_STRING, NULL, 'A', "of a volume: sets an attribute; without =VALUE takes it away (again for more)", "KEY[=VALUE]" },
	CMD_CHANGE_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_TABLEEND
};

static int set_volume(struct vol_pool *pool, const char *volume)
{
	struct json_object *q = cmd_request_on("set", volume);

	if (readonly_text)
		json_set_bool(q, "readonly", cmd_parse_yes_no("--readonly", readonly_text) == 1);
	if (attrs_given)
		json_set(q, "attrs", json_object_get(attrs));
	return cmd_call(pool, q, NULL, NULL, NULL);
}

static int set(const struct cmd_args *a)
{
	char name[VOL_NAME_SIZE], volume[VOL_NAME_SIZE];
	bool of_pool = thresholds || policy || discards || grow_by || grow_to, of_volume = readonly_text || attrs_given;
	struct vol_pool *pool;
	int code, r;

	r = vol_parse_object(a->arg[0], name, volume);
	if (r)
		return cmd_failed(NULL, r);
	if (volume[0] ? of_pool : of_volume)
		return cmd_usage(volume[0] ? "%s is a volume; --thresholds, --policy, --discards, --grow-by and --grow-to are a pool's" :
					     "%s is a pool; --readonly and --attr are a volume's", a->arg[0]);
	if (!of_pool && !of_volume)
		return cmd_usage("%s: nothing is to be set; --help shows what can be", a->arg[0]);
	code = check_policy();
	if (!code && readonly_text && cmd_parse_yes_no("--readonly", readonly_text) < 0)
		code = CMD_USAGE;
	pool = code ? NULL : cmd_open(name, 0, &code);
	if (!pool)
		return code;
	r = volume[0] ? set_volume(pool, volume) : set_pool(pool);
	if (!r)
		cmd_say(cmd_opt.test ? "%s would be changed" : "%s changed", a->arg[0]);
	return cmd_close(pool, cmd_exit_code(r));
}

static const struct poptOption forget_options[] = {
	CMD_CHANGE_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_TABLEEND
};

/* With -t: as vol_devices_forget(). */
static int forget_test(const char *path)
{
	struct vol_found *found;
	bool known = false;
	size_t n;
	int r = vol_find_members(&found, &n);

	if (r)
		return cmd_failed(NULL, r);
	for (size_t i = 0; i < n && !known; i++)
		known = found[i].configured && !strcmp(found[i].path, path);
	vol_found_free(found, n);
	if (known)
		return CMD_OK;
	cmd_usage("%s is not among the devices that are looked at", path);
	return CMD_NOT_FOUND;
}

static int forget(const struct cmd_args *a)
{
	int code = 0;

	for (unsigned i = 0; i < a->n && !code; i++) {
		char *path = cmd_absolute(a->arg[i]);
		const char *one = path;
		int r = cmd_opt.test ? 0 : vol_devices_forget(&one, 1);
		code = cmd_opt.test ? forget_test(path) : r ? cmd_failed(NULL, r) : 0;
		if (!code)
			cmd_say(cmd_opt.test ? "%s would not be looked at any more" : "%s is not looked at any more", path);
		free(path);
	}
	return code;
}

/* ---- activate, deactivate ---------------------------------------------------- */

static const struct poptOption activate_options[] = {
	{ "all", 'a', POPT_ARG_NONE, &all, 0, "every pool that is found", NULL },
	{ "readonly", 'r', POPT_ARG_NONE, &activate_readonly, 0, "open it for reading only, also with members missing", NULL },
	{ "complete", 0, POPT_ARG_NONE, &complete, 0, "leave a pool alone that misses members, or that the kernel cannot have", NULL },
	CMD_UDEV_OPTION,
	CMD_CHANGE_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_TABLEEND
};

static int told_link(void *arg, const struct link_info *l, int r, const char *text)
{
	(void)arg;
	if (r)
		fprintf(stderr, "vdpool: %s/%s is not up: %s\n", l->pool, l->volume, text);
	else
		cmd_say("%s is %s", l->path, l->device);
	return 0;
}

static int activate_one(void *arg, const char *pool)
{
	struct link_pool lp = { .test = cmd_opt.test, .complete = complete, .readonly = activate_readonly, .takeover = cmd_opt.takeover,
				.fn = told_link };
	int r = link_activate(pool, &lp);

	(void)arg;
	if (r)
		return r;
	if (lp.why && !complete && !all)
		return vol_fail(NULL, -ENODEV, "pool %s is not activated: %s", lp.name, lp.why);
	if (lp.why)
		cmd_say("pool %s is not for the kernel: %s", lp.name, lp.why);
	else if (lp.was)
		cmd_say("pool %s is active", lp.name);
	else if (lp.missing && complete)
		cmd_say("pool %s waits for %u of its %u members", lp.name, lp.missing, lp.members);
	else
		cmd_say(cmd_opt.test ? "pool %s would be activated%s" : "pool %s is active now%s", lp.name, activate_readonly ? ", read-only" : "");
	return 0;
}

static int deactivate_one(void *arg, const char *pool)
{
	struct link_pool lp = { .test = cmd_opt.test };
	int r = link_deactivate(pool, &lp);

	(void)arg;
	if (!r)
		cmd_say(!lp.was ? "pool %s is not active" : cmd_opt.test ? "pool %s would be deactivated" : "pool %s is not active any more", lp.name);
	return r;
}

static int each_pool(const struct cmd_args *a, int (*all_of)(int (*)(void *, const char *), void *), int (*fn)(void *, const char *))
{
	char name[VOL_NAME_SIZE];
	int code = 0, one, r;

	if (all ? a->n : !a->n)
		return cmd_usage(all ? "--all is of all pools; name none" : "which pool? --all are all");
	if (cmd_opt.noudevsync)
		link_no_udev_sync();
	r = all ? all_of(fn, NULL) : 0;
	if (r)
		code = cmd_failed(NULL, r);
	for (unsigned i = 0; i < a->n; i++) {
		one = cmd_parse_pool_of(a->arg[i], name);
		r = one ? 0 : fn(NULL, name);
		one = r ? cmd_failed(NULL, r) : one;
		code = code ? code : one;
	}
	return code;
}

static int every_pool(int (*fn)(void *, const char *), void *arg)
{
	return link_each_pool(NULL, fn, arg);
}

static int activate(const struct cmd_args *a)
{
	return each_pool(a, every_pool, activate_one);
}

static const struct poptOption deactivate_options[] = {
	{ "all", 'a', POPT_ARG_NONE, &all, 0, "every pool that the kernel has open", NULL },
	CMD_UDEV_OPTION,
	CMD_CHANGE_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_TABLEEND
};

static int deactivate(const struct cmd_args *a)
{
	return each_pool(a, link_each_active, deactivate_one);
}

/* ---- probe -------------------------------------------------------------------- */

static const struct poptOption probe_options[] = {
	CMD_COMMON_OPTIONS,
	POPT_TABLEEND
};

/* For udev's IMPORT{program}: a name that is none could set other properties; a label with one is damaged. */
static int probe(const struct cmd_args *a)
{
	char pool[VOL_UUID_TEXT], member[VOL_UUID_TEXT];
	struct vol_found f;
	int r = vol_find_sole_label(a->arg[0], &f);

	if (r)
		return cmd_failed(NULL, r);
	vol_uuid_text(f.pool, pool);
	vol_uuid_text(f.member, member);
	printf("ID_FS_TYPE=vd_member\nID_FS_USAGE=raid\nID_FS_UUID=%s\nID_FS_UUID_ENC=%s\n", member, member);
	printf("VD_POOL_UUID=%s\nVD_MEMBER=%u\n", pool, f.index);
	printf("ID_FS_LABEL=%s\nID_FS_LABEL_ENC=%s\nVD_POOL=%s\n", f.pool_name, f.pool_name, f.pool_name);
	return CMD_OK;
}

/* ---- table ---------------------------------------------------------------- */

static const struct cmd_subcommand subcommands[] = {
	{ "create", create, create_options, "create POOL {DEVICE | FILE}...", 2, 257, "make a pool", NULL },
	{ "add", add, add_options, "add POOL {DEVICE | FILE}...", 2, 256, "give it more members", NULL },
	{ "grow", grow, grow_options, "grow POOL [MEMBER]", 1, 2, "take in what members have become larger by", NULL },
	{ "ls", ls, report_options, "ls [POOL]...", 0, 4096, "list pools", NULL },
	{ "show", show, report_options, "show POOL...", 1, 4096, "tell all about a pool", NULL },
	{ "check", check, check_options, "check POOL", 1, 1, "look for damage", NULL },
	{ "dump", dump, report_options, "dump POOL", 1, 1, "list every block of metadata", NULL },
	{ "set", set, set_options, "set {POOL | POOL/VOLUME}", 1, 1, "change properties of a pool or volume",
	  on_set_option },
	{ "activate", activate, activate_options, "activate {POOL | MEMBER}... | --all", 0, 4096, "open in the kernel, with the devices of its links", NULL },
	{ "deactivate", deactivate, deactivate_options, "deactivate {POOL | MEMBER}... | --all", 0, 4096, "take them away, and close it", NULL },
	{ "probe", probe, probe_options, "probe DEVICE", 1, 1, "tell what its label says, for udev", NULL },
	{ "forget", forget, forget_options, "forget PATH...", 1, 4096, "do not look at a device or file any more", NULL },
};

int main(int argc, char **argv)
{
	int code;

	attrs = json_object_new_object();
	code = cmd_subcommands(argc, argv, "vdpool", subcommands, sizeof(subcommands) / sizeof(subcommands[0]));
	json_object_put(attrs);
	return code;
}
