// SPDX-License-Identifier: GPL-2.0-or-later
#include "common.h"

#include <ctype.h>
#include <limits.h>
#include <locale.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../libvol/find.h"

#ifndef VD_VERSION
#define VD_VERSION "0.1"
#endif

struct cmd_options cmd_opt;

enum { OPT_DEVICE = 1000, OPT_VERSION, OPT_HELP };

struct poptOption cmd_common[] = {
	{ "device", 0, POPT_ARG_STRING, NULL, OPT_DEVICE, "also look for members at PATH (again for more)", "PATH" },
	{ "takeover", 0, POPT_ARG_NONE, &cmd_opt.takeover, 0, "open a pool that another host left in use", NULL },
	{ "quiet", 'q', POPT_ARG_NONE, &cmd_opt.quiet, 0, "say nothing but errors", NULL },
	{ "verbose", 'v', POPT_ARG_NONE, &cmd_opt.verbose, 0, "say more", NULL },
	{ "version", 0, POPT_ARG_NONE, NULL, OPT_VERSION, "show the version", NULL },
	{ "help", '?', POPT_ARG_NONE, NULL, OPT_HELP, "show this", NULL },
	POPT_TABLEEND
};

struct poptOption cmd_change[] = {
	{ "test", 't', POPT_ARG_NONE, &cmd_opt.test, 0, "say what would be done, change nothing", NULL },
	{ "yes", 'y', POPT_ARG_NONE, &cmd_opt.yes, 0, "do not ask", NULL },
	POPT_TABLEEND
};

struct poptOption cmd_report[] = {
	{ "options", 'o', POPT_ARG_STRING, &cmd_opt.fields, 0, "fields to show; +FIELD adds to the usual ones; help lists them", "FIELD[,FIELD...]" },
	{ "sort", 'O', POPT_ARG_STRING, &cmd_opt.sort, 0, "sort by these fields; -FIELD the other way", "FIELD[,FIELD...]" },
	{ "units", 0, POPT_ARG_STRING, &cmd_opt.units, 0, "unit of sizes: h r b s k m g t p e; capitals are powers of 1000", "UNIT" },
	{ "nosuffix", 0, POPT_ARG_NONE, &cmd_opt.nosuffix, 0, "sizes without their unit", NULL },
	{ "noheadings", 0, POPT_ARG_NONE, &cmd_opt.noheadings, 0, "no line of headings", NULL },
	{ "reportformat", 0, POPT_ARG_STRING, &cmd_opt.format, 0, "basic or json", "FORMAT" },
	POPT_TABLEEND
};

/* ---- messages ------------------------------------------------------------ */

static bool bar_shown;

static void clear_bar(void)
{
	if (bar_shown)
		fputs("\r\033[K", stderr);
	bar_shown = false;
}

/* Further lines of a text stand below its first.  A line is one write: others may write there, too. */
static void complain(const char *kind, const char *text)
{
	int n = (int)strcspn(text, "\n"), indent = (int)strlen(program_invocation_short_name) + 2;

	fflush(stdout);
	clear_bar();
	fprintf(stderr, "%s: %s%.*s\n", program_invocation_short_name, kind, n, text);
	while (text[n]) {
		text += n + 1;
		n = (int)strcspn(text, "\n");
		fprintf(stderr, "%*s%.*s\n", indent, "", n, text);
	}
}

static void on_log(void *arg, enum vol_log_level level, const char *text)
{
	(void)arg;
	if (level == VOL_LOG_INFO && !cmd_opt.verbose)
		return;
	if (level == VOL_LOG_ERROR || !cmd_opt.quiet)
		complain(level == VOL_LOG_WARN ? "warning: " : "", text);
}

static void on_signal(int sig)
{
	(void)sig;
	vol_interrupt();
}

const char *cmd_version(void)
{
	return VD_VERSION;
}

int cmd_usage(const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	complain("", text);
	return CMD_USAGE;
}

int cmd_exit_code(int r)
{
	switch (-r) {
	case 0:
		return CMD_OK;
	case EINVAL: case ERANGE: case E2BIG: case ENAMETOOLONG: case EXDEV: case EOPNOTSUPP:
		return CMD_USAGE;
	case ENOENT: case ENOTUNIQ: case ENOTBLK:
		return CMD_NOT_FOUND;
	case EBUSY: case EACCES: case EAGAIN:
		return CMD_BUSY;
	case ENOTEMPTY:
		return CMD_REFUSED;
	case EBADMSG: case EUCLEAN:
		return CMD_DAMAGED;
	}
	return CMD_FAILED;
}

int cmd_failed(const struct vol_pool *pool, int r)
{
	complain("", vol_error(pool));
	return cmd_exit_code(r);
}

void cmd_say(const char *fmt, ...)
{
	va_list ap;

	if (cmd_opt.quiet)
		return;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

bool cmd_confirm(const char *fmt, ...)
{
	char question[512], line[64];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(question, sizeof(question), fmt, ap);
	va_end(ap);
	if (cmd_opt.yes || cmd_opt.test)
		return true;
	if (!isatty(STDIN_FILENO)) {
		strncat(question, " -- nobody is there to ask; say --yes to do it", sizeof(question) - strlen(question) - 1);
		complain("", question);
		return false;
	}
	fprintf(stderr, "%s [y/n]: ", question);
	fflush(stderr);
	if (!fgets(line, sizeof(line), stdin) || tolower((unsigned char)line[0]) != 'y') {
		complain("", "not done");
		return false;
	}
	return true;
}

const char *cmd_size(uint64_t bytes)
{
	static char buf[4][32];
	static unsigned at;

	at = (at + 1) % 4;
	vol_format_size(bytes, cmd_opt.units ? cmd_opt.units[0] : 'h', !cmd_opt.nosuffix, buf[at], sizeof(buf[at]));
	return buf[at];
}

/* ---- arguments ----------------------------------------------------------- */

static void check_report_options(void)
{
	if (cmd_opt.units && (strlen(cmd_opt.units) != 1 || !vol_units_valid(cmd_opt.units[0])))
		exit(cmd_usage("--units %s: the unit is one of h r b s k m g t p e, or a capital of those", cmd_opt.units));
	if (cmd_opt.format && strcmp(cmd_opt.format, "basic") && strcmp(cmd_opt.format, "json"))
		exit(cmd_usage("--reportformat %s: the format is basic or json", cmd_opt.format));
}

/* What is still held when the process ends, from whatever place. */
static poptContext live_context;
static struct json_object *live_rows;

static void free_rest(void)
{
	if (live_context)
		poptFreeContext(live_context);
	json_object_put(live_rows);
}

void cmd_parse(struct cmd_args *a, int argc, char **argv, const struct poptOption *options, const char *synopsis,
	       unsigned min, unsigned max, int (*fn)(int val, char *arg))
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };
	int val;

	setlocale(LC_CTYPE, "");
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	vol_set_log(on_log, NULL);
	memset(a, 0, sizeof(*a));
	a->con = poptGetContext(argv[0], argc, (const char **)argv, options, 0);
	live_context = a->con;
	atexit(free_rest);
	poptSetOtherOptionHelp(a->con, synopsis);
	while ((val = poptGetNextOpt(a->con)) >= 0) {
		char *arg = poptGetOptArg(a->con);
		int r = 0;
		if (val == OPT_VERSION) {
			printf("%s (vd) %s\n", program_invocation_short_name, VD_VERSION);
			exit(CMD_OK);
		}
		if (val == OPT_HELP) {
			poptPrintHelp(a->con, stdout, 0);
			exit(CMD_OK);
		}
		if (val == OPT_DEVICE) {
			char *path = cmd_absolute(arg);
			r = vol_device_add(path);
			free(path);
			free(arg);
			if (r)
				exit(cmd_failed(NULL, r));
		} else if (fn) {
			r = fn(val, arg);
			if (r)
				exit(CMD_USAGE);
		}
	}
	if (val < -1)
		exit(cmd_usage("%s: %s; --help shows the options", poptBadOption(a->con, POPT_BADOPTION_NOALIAS), poptStrerror(val)));
	check_report_options();
	a->arg = poptGetArgs(a->con);
	while (a->arg && a->arg[a->n])
		a->n++;
	if (a->n < min || a->n > max)
		exit(cmd_usage("%s; wanted: %s %s", a->n < min ? "something is missing" : "too many arguments",
			       program_invocation_short_name, synopsis));
}

void cmd_args_free(struct cmd_args *a)
{
	poptFreeContext(a->con);
	live_context = NULL;
}

static void overview(FILE *f, const char *program, const struct cmd_subcommand *table, size_t n)
{
	int width = 0;

	for (size_t i = 0; i < n; i++)
		width = strlen(table[i].synopsis) > (size_t)width ? (int)strlen(table[i].synopsis) : width;
	fprintf(f, "Usage: %s SUBCOMMAND [OPTION]... ARGUMENT...\n\n", program);
	for (size_t i = 0; i < n; i++)
		fprintf(f, "  %s %-*s  %s\n", program, width, table[i].synopsis, table[i].help);
	fprintf(f, "\n%s SUBCOMMAND --help shows the options; %s(8) tells all.\n", program, program);
}

int cmd_subcommands(int argc, char **argv, const char *program, const struct cmd_subcommand *table, size_t n)
{
	static const struct poptOption none[] = { CMD_COMMON_OPTIONS, POPT_TABLEEND };
	const char *want = argc > 1 ? argv[1] : "";
	struct cmd_args a;
	int code;

	if (!strcmp(want, "--help") || !strcmp(want, "-?") || !strcmp(want, "help")) {
		overview(stdout, program, table, n);
		return CMD_OK;
	}
	if (!strcmp(want, "--version"))
		cmd_parse(&a, argc, argv, none, "SUBCOMMAND", 0, 0, NULL); /* ends here */
	for (size_t i = 0; i < n; i++) {
		if (strcmp(table[i].name, want))
			continue;
		argv[1] = argv[0];
		cmd_parse(&a, argc - 1, argv + 1, table[i].options, table[i].synopsis, table[i].min, table[i].max, table[i].on_option);
		code = table[i].fn(&a);
		cmd_args_free(&a);
		return code;
	}
	if (*want)
		cmd_usage("there is no subcommand \"%s\"", want);
	overview(stderr, program, table, n);
	return CMD_USAGE;
}

int cmd_parse_pool(const char *text, char pool[VOL_NAME_SIZE])
{
	char volume[VOL_NAME_SIZE];
	int r = vol_parse_object(text, pool, volume);

	if (r)
		return cmd_failed(NULL, r);
	return volume[0] ? cmd_usage("\"%s\" is a volume; wanted a pool's name alone: %s", text, pool) : 0;
}

int cmd_parse_pool_of(const char *text, char pool[VOL_NAME_SIZE])
{
	struct vol_found f;
	int r;

	if (text[0] != '/' || !strncmp(text, "/dev/vdisk/", 11))
		return cmd_parse_pool(text, pool);
	r = vol_find_label(text, &f);
	if (r)
		return cmd_failed(NULL, r);
	vol_uuid_text(f.pool, pool);
	return 0;
}

int cmd_parse_volume(const char *text, char pool[VOL_NAME_SIZE], char volume[VOL_NAME_SIZE])
{
	int r = vol_parse_object(text, pool, volume);

	if (r)
		return cmd_failed(NULL, r);
	return volume[0] ? 0 : cmd_usage("\"%s\" is a pool; wanted a volume: %s/VOLUME", text, pool);
}

int cmd_parse_new_name(const char *text, const char *pool, char volume[VOL_NAME_SIZE])
{
	char other[VOL_NAME_SIZE];
	int r;

	if (strchr(text, '/')) {
		r = cmd_parse_volume(text, other, volume);
		if (!r && strcmp(other, pool))
			r = cmd_usage("\"%s\" is in another pool than %s; a volume stays in its pool", text, pool);
		return r;
	}
	r = vol_check_volume_name(text);
	if (r)
		return cmd_failed(NULL, r);
	snprintf(volume, VOL_NAME_SIZE, "%s", text);
	return 0;
}

int cmd_parse_attr(const char *text, struct json_object *attrs)
{
	const char *eq = strchr(text, '=');
	char *key = strndup(text, eq ? (size_t)(eq - text) : strlen(text));

	if (!key || !*key) {
		free(key);
		return cmd_usage("--attr %s: wanted KEY=VALUE", text);
	}
	json_object_object_add(attrs, key, eq && eq[1] ? json_object_new_string(eq + 1) : NULL);
	free(key);
	return 0;
}

int cmd_parse_yes_no(const char *option, const char *text)
{
	if (!strcmp(text, "y") || !strcmp(text, "yes"))
		return 1;
	if (!strcmp(text, "n") || !strcmp(text, "no"))
		return 0;
	cmd_usage("%s %s: wanted y or n", option, text);
	return -1;
}

int cmd_check_reserve(const char *text)
{
	uint64_t bytes;
	int r = strcmp(text, "all") ? vol_parse_size(text, &bytes, NULL) : 0;

	return r ? cmd_failed(NULL, r) : 0;
}

void cmd_set_reserve(struct json_object *request, const char *text)
{
	uint64_t bytes;

	if (!strcmp(text, "all"))
		json_set_str(request, "reserve", text);
	else if (!vol_parse_size(text, &bytes, NULL))
		json_set_u64(request, "reserve", (bytes + 4095) & ~(uint64_t)4095);
}

char *cmd_absolute(const char *path)
{
	char *dir, *out = NULL;

	if (path[0] == '/')
		return strdup(path);
	dir = getcwd(NULL, 0);
	if (!dir || asprintf(&out, "%s/%s", dir, path) < 0)
		out = strdup(path);
	free(dir);
	return out;
}

/* ---- pools and requests --------------------------------------------------- */

struct vol_pool *cmd_open(const char *name, unsigned flags, int *exit_code)
{
	struct vol_pool *pool;
	int r;

	if (cmd_opt.test && !(flags & VOL_READONLY))
		flags |= VOL_TEST;
	r = vol_pool_open(name, flags | (cmd_opt.takeover ? VOL_TAKEOVER : 0), &pool);
	if (!r)
		return pool;
	*exit_code = cmd_failed(NULL, r);
	return NULL;
}

int cmd_close(struct vol_pool *pool, int code)
{
	int r = vol_pool_close(pool);

	if (r) {
		r = cmd_failed(NULL, r);
		return code ? code : r;
	}
	return code;
}

struct json_object *cmd_request(const char *op)
{
	struct json_object *q = json_object_new_object();

	json_set_str(q, "op", op);
	return q;
}

struct json_object *cmd_request_on(const char *op, const char *volume)
{
	struct json_object *q = cmd_request(op);

	json_set_str(q, "volume", volume);
	return q;
}

static void show_bar(const char *what, uint64_t permille)
{
	static const char full[] = "##################################################";
	int n = (int)(permille * 50 / 1000);

	if (cmd_opt.quiet || !isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\r%s [%-50.*s] %3u.%u %%", what, n, full, (unsigned)(permille / 10), (unsigned)(permille % 10));
	bar_shown = true;
}

struct call {
	const char *what;
	int (*part)(void *arg, struct json_object *part);
	void *arg;
};

static int on_part(void *arg, struct json_object *o)
{
	struct call *c = arg;
	struct json_object *part;
	uint64_t permille;

	if (json_get_u64(o, "progress", &permille)) {
		show_bar(c->what, permille > 1000 ? 1000 : permille);
		return 0;
	}
	if (json_get(o, "part", json_type_object, &part) && c->part) {
		clear_bar();
		return c->part(c->arg, part);
	}
	return 0;
}

int cmd_call(struct vol_pool *pool, struct json_object *q, int (*part)(void *, struct json_object *), void *arg,
	     struct json_object **result)
{
	struct call c = { .part = part, .arg = arg };
	struct json_object *answer = NULL, *warnings;
	int r;

	c.what = json_str(q, "op");
	if (cmd_opt.test)
		json_set_bool(q, "test", true);
	r = vol_call(pool, q, on_part, &c, &answer);
	clear_bar();
	json_object_put(q);
	if (r) {
		complain("", vol_error(pool));
		return r;
	}
	if (!cmd_opt.quiet && json_get(answer, "warnings", json_type_array, &warnings))
		for (size_t i = 0; i < json_object_array_length(warnings); i++)
			complain("warning: ", json_object_get_string(json_object_array_get_idx(warnings, i)));
	if (result)
		*result = answer;
	else
		json_object_put(answer);
	return 0;
}

/* ---- reports -------------------------------------------------------------- */

bool cmd_json(void)
{
	return cmd_opt.format && !strcmp(cmd_opt.format, "json");
}

static const struct cmd_field *find_field(const struct cmd_report *r, const char *name, size_t len)
{
	for (const struct cmd_field *f = r->field; f->name; f++)
		if (strlen(f->name) == len && !strncmp(f->name, name, len))
			return f;
	return NULL;
}

static int unknown_field(const struct cmd_report *r, const char *name, size_t len)
{
	char known[1024];
	size_t n = 0;

	for (const struct cmd_field *f = r->field; f->name && n < sizeof(known); f++)
		n += (size_t)snprintf(known + n, sizeof(known) - n, " %s", f->name);
	return cmd_usage("there is no field \"%.*s\" here; there are:%s", (int)len, name, known);
}

static int choose(struct cmd_report *r, const char *list)
{
	while (*list) {
		size_t len = strcspn(list, ",");
		const struct cmd_field *f = find_field(r, list, len);
		if (len == 3 && !strncmp(list, "all", 3)) {
			for (f = r->field; f->name; f++)
				if (!cmd_report_wants(r, f->name))
					r->chosen[r->nchosen++] = f;
		} else if (!f) {
			return unknown_field(r, list, len);
		} else if (!cmd_report_wants(r, f->name)) {
			r->chosen[r->nchosen++] = f;
		}
		list += len + (list[len] == ',');
	}
	return 0;
}

int cmd_report_init(struct cmd_report *r, const char *kind, const struct cmd_field *fields, const char *defaults)
{
	const char *want = cmd_opt.fields;
	int e = 0;

	json_object_put(live_rows);
	*r = (struct cmd_report){ .kind = kind, .field = fields, .defaults = defaults, .rows = json_object_new_array() };
	live_rows = r->rows;
	if (want && !strcmp(want, "help")) {
		for (const struct cmd_field *f = fields; f->name; f++)
			printf("  %-16s %s\n", f->name, f->help);
		exit(CMD_OK);
	}
	if (!want || *want == '+') {
		e = choose(r, defaults);
		want = want ? want + 1 : "";
	}
	return e ? e : choose(r, want);
}

bool cmd_report_wants(const struct cmd_report *r, const char *field)
{
	for (unsigned i = 0; i < r->nchosen; i++)
		if (!strcmp(r->chosen[i]->name, field))
			return true;
	return false;
}

void cmd_report_add(struct cmd_report *r, struct json_object *row)
{
	json_object_array_add(r->rows, row);
}

static const struct cmd_report *sorted;

static int compare_values(const struct cmd_field *f, struct json_object *a, struct json_object *b)
{
	if (!a || !b)
		return (a != NULL) - (b != NULL);
	if (f->type == CMD_TEXT)
		return strcmp(json_object_get_string(a), json_object_get_string(b));
	double x = json_object_get_double(a), y = json_object_get_double(b);
	return (x > y) - (x < y);
}

static int compare_rows(const void *pa, const void *pb)
{
	struct json_object *a = *(struct json_object *const *)pa, *b = *(struct json_object *const *)pb;
	const char *key = cmd_opt.sort;

	while (*key) {
		size_t len = strcspn(key, ",");
		bool down = *key == '-';
		size_t skip = *key == '-' || *key == '+';
		const struct cmd_field *f = find_field(sorted, key + skip, len - skip);
		int c = f ? compare_values(f, json_object_object_get(a, f->name), json_object_object_get(b, f->name)) : 0;
		if (c)
			return down ? -c : c;
		key += len + (key[len] == ',');
	}
	return 0;
}

static void sort_rows(struct cmd_report *r)
{
	for (const char *key = cmd_opt.sort; *key;) {
		size_t len = strcspn(key, ","), skip = *key == '-' || *key == '+';
		if (!find_field(r, key + skip, len - skip))
			exit(unknown_field(r, key + skip, len - skip));
		key += len + (key[len] == ',');
	}
	sorted = r;
	json_object_array_sort(r->rows, compare_rows);
}

static void time_text(uint64_t ns, char *buf, size_t size)
{
	time_t t = (time_t)(ns / 1000000000u);
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(buf, size, "%Y-%m-%dT%H:%M:%SZ", &tm))
		snprintf(buf, size, "?");
}

/* As people read it; malloc'd. */
static char *cell_text(const struct cmd_field *f, struct json_object *row)
{
	struct json_object *v = json_object_object_get(row, f->name);
	char buf[64];

	if (!v)
		return strdup("");
	switch (f->type) {
	case CMD_SIZE:
		return strdup(cmd_size(json_object_get_uint64(v)));
	case CMD_NUMBER:
		snprintf(buf, sizeof(buf), "%llu", (unsigned long long)json_object_get_uint64(v));
		return strdup(buf);
	case CMD_TIME:
		time_text(json_object_get_uint64(v), buf, sizeof(buf));
		return strdup(buf);
	case CMD_PERCENT:
		snprintf(buf, sizeof(buf), "%.2f", json_object_get_double(v));
		return strdup(buf);
	case CMD_TEXT:
		break;
	}
	return strdup(json_object_get_string(v));
}

static void print_json(struct cmd_report *r)
{
	struct json_object *out = json_object_new_object(), *reports = json_object_new_array();
	struct json_object *report = json_object_new_object(), *rows = json_object_new_array();
	char buf[64];

	for (size_t i = 0; i < json_object_array_length(r->rows); i++) {
		struct json_object *from = json_object_array_get_idx(r->rows, i), *row = json_object_new_object();
		for (unsigned k = 0; k < r->nchosen; k++) {
			struct json_object *v = json_object_object_get(from, r->chosen[k]->name);
			if (v && r->chosen[k]->type == CMD_TIME) {
				time_text(json_object_get_uint64(v), buf, sizeof(buf));
				json_set_str(row, r->chosen[k]->name, buf);
			} else {
				json_set(row, r->chosen[k]->name, json_object_get(v));
			}
		}
		json_object_array_add(rows, row);
	}
	json_set(report, r->kind, rows);
	json_object_array_add(reports, report);
	json_set(out, "report", reports);
	printf("%s\n", json_object_to_json_string_ext(out, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
							   JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(out);
}

static void print_table(struct cmd_report *r)
{
	size_t n = json_object_array_length(r->rows);
	char **cell = calloc(n * r->nchosen + 1, sizeof(*cell));
	int width[64];

	if (!cell) {
		complain("", "out of memory");
		exit(CMD_FAILED);
	}
	for (unsigned k = 0; k < r->nchosen; k++) {
		width[k] = cmd_opt.noheadings ? 0 : (int)strlen(r->chosen[k]->heading);
		for (size_t i = 0; i < n; i++) {
			char *text = cell_text(r->chosen[k], json_object_array_get_idx(r->rows, i));
			cell[i * r->nchosen + k] = text;
			if (text && (int)strlen(text) > width[k])
				width[k] = (int)strlen(text);
		}
	}
	for (size_t i = cmd_opt.noheadings ? 1 : 0; i <= n; i++) {
		if (i == 0 && !n)
			break; /* headings of nothing */
		printf(" ");
		for (unsigned k = 0; k < r->nchosen; k++) {
			const char *text = i ? cell[(i - 1) * r->nchosen + k] : r->chosen[k]->heading;
			bool left = r->chosen[k]->type == CMD_TEXT || r->chosen[k]->type == CMD_TIME;
			bool last = k == r->nchosen - 1;
			printf(" %*s", left ? (last ? 0 : -width[k]) : width[k], text ? text : "?");
		}
		printf("\n");
	}
	for (size_t i = 0; i < n * r->nchosen; i++)
		free(cell[i]);
	free(cell);
}

void cmd_report_print(struct cmd_report *r)
{
	clear_bar();
	if (cmd_opt.sort)
		sort_rows(r);
	if (cmd_json())
		print_json(r);
	else
		print_table(r);
	json_object_put(r->rows);
	r->rows = live_rows = NULL;
}
