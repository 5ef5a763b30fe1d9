// SPDX-License-Identifier: GPL-2.0-or-later
/* vddiff: the changed-block list of two related volumes. */
#include "common.h"

static int summary;

static const struct poptOption options[] = {
	{ "summary", 's', POPT_ARG_NONE, &summary, 0, "how much in all, not where", NULL },
	CMD_REPORT_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_TABLEEND
};

static const struct cmd_field range_fields[] = {
	{ "offset", "Offset", CMD_NUMBER, "bytes from the start of the volumes", },
	{ "length", "Length", CMD_NUMBER, "bytes" },
	{ NULL, NULL, CMD_TEXT, NULL },
};
static const struct cmd_field sum_fields[] = {
	{ "ranges", "Ranges", CMD_NUMBER, "number of ranges" },
	{ "bytes", "Bytes", CMD_SIZE, "their length together" },
	{ NULL, NULL, CMD_TEXT, NULL },
};

/* Straight to stdout in the plain form: a list may be long. */
static int on_part(void *arg, struct json_object *part)
{
	struct cmd_report *report = arg;
	struct json_object *list;

	if (!json_get(part, "ranges", json_type_array, &list))
		return 0;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *pair = json_object_array_get_idx(list, i);
		uint64_t off = json_object_get_uint64(json_object_array_get_idx(pair, 0));
		uint64_t len = json_object_get_uint64(json_object_array_get_idx(pair, 1));
		if (cmd_json() || cmd_opt.sort || cmd_opt.fields) {
			struct json_object *row = json_object_new_object();
			json_set_u64(row, "offset", off);
			json_set_u64(row, "length", len);
			cmd_report_add(report, row);
		} else if (printf("%llu %llu\n", (unsigned long long)off, (unsigned long long)len) < 0) {
			return -EPIPE;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	char pool_name[VOL_NAME_SIZE], other[VOL_NAME_SIZE], va[VOL_NAME_SIZE], vb[VOL_NAME_SIZE];
	struct json_object *q, *result;
	struct cmd_report report;
	struct vol_pool *pool;
	struct cmd_args a;
	int code, r;

	cmd_parse(&a, argc, argv, options, "POOL/VOLUME {POOL/VOLUME | VOLUME}", 2, 2, NULL);
	code = cmd_parse_volume(a.arg[0], pool_name, va);
	if (!code && strchr(a.arg[1], '/')) {
		code = cmd_parse_volume(a.arg[1], other, vb);
		if (!code && strcmp(other, pool_name))
			code = cmd_usage("%s and %s are in two pools, and so are not related", a.arg[0], a.arg[1]);
	} else if (!code) {
		code = cmd_parse_new_name(a.arg[1], pool_name, vb);
	}
	if (!code)
		code = cmd_report_init(&report, summary ? "diff" : "range", summary ? sum_fields : range_fields,
				       summary ? "ranges,bytes" : "offset,length");
	if (code)
		return code;
	pool = cmd_open(pool_name, VOL_READONLY, &code);
	if (!pool)
		return code;
	q = cmd_request("diff");
	json_set_str(q, "a", va);
	json_set_str(q, "b", vb);
	r = cmd_call(pool, q, summary ? NULL : on_part, &report, &result);
	if (!r && summary)
		cmd_report_add(&report, json_object_get(result));
	if (!r) {
		if (summary || cmd_json() || cmd_opt.sort || cmd_opt.fields)
			cmd_report_print(&report);
		json_object_put(result);
	}
	code = cmd_close(pool, cmd_exit_code(r));
	cmd_args_free(&a);
	if (fflush(stdout) && !code) {
		cmd_usage("the list cannot be written: %s", strerror(errno));
		code = CMD_FAILED;
	}
	return code;
}
