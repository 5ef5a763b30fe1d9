/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the commands share: options, reports, progress, confirmation, exit codes.
 * A command is argument parsing over libvol; this is the parsing's common half.
 */
#ifndef VD_CMD_COMMON_H
#define VD_CMD_COMMON_H

#include <errno.h>
#include <json-c/json.h>
#include <popt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "../libvol/json.h"
#include "../libvol/vol.h"

/* man vd(7), EXIT STATUS */
enum cmd_exit {
	CMD_OK = 0,
	CMD_USAGE = 2,     /* options, names or values that cannot be */
	CMD_NOT_FOUND = 3, /* no such pool, volume, file or device */
	CMD_BUSY = 4,      /* in use, locked, open */
	CMD_FAILED = 5,    /* I/O, no space, no permission, exists already, interrupted */
	CMD_REFUSED = 6,   /* data would be lost: needs --force, --yes or a yes */
	CMD_DAMAGED = 7,   /* a check found faults, or damage was in the way */
};

struct cmd_options {
	int test, yes, quiet, verbose, takeover;     /* cmd_common, cmd_change */
	int noudevsync;                              /* CMD_UDEV_OPTION */
	int noheadings, nosuffix;                    /* cmd_report */
	const char *units, *fields, *sort, *format;
};
extern struct cmd_options cmd_opt;

/* For POPT_ARG_INCLUDE_TABLE.  common: --device --takeover -q -v --version; change: -t -y;
 * report: -o -O --units --nosuffix --noheadings --reportformat. */
extern struct poptOption cmd_common[], cmd_change[], cmd_report[];
#define CMD_COMMON_OPTIONS { NULL, 0, POPT_ARG_INCLUDE_TABLE, cmd_common, 0, "Common options:", NULL }
#define CMD_CHANGE_OPTIONS { NULL, 0, POPT_ARG_INCLUDE_TABLE, cmd_change, 0, "When something is changed:", NULL }
/* Of what makes or removes devices. */
#define CMD_UDEV_OPTION { "noudevsync", 0, POPT_ARG_NONE, &cmd_opt.noudevsync, 0, "do not wait until udev has done its part", NULL }
#define CMD_REPORT_OPTIONS { NULL, 0, POPT_ARG_INCLUDE_TABLE, cmd_report, 0, "Report options:", NULL }

/* Parses; ends the process for --help, --version and wrong usage.  `fn`, when not
 * NULL, gets each option whose val is not 0 with its argument (malloc'd, given away)
 * and answers non-zero to end with CMD_USAGE.  min..max arguments are left. */
struct cmd_args { poptContext con; const char **arg; unsigned n; };
void cmd_parse(struct cmd_args *a, int argc, char **argv, const struct poptOption *options, const char *synopsis,
	       unsigned min, unsigned max, int (*fn)(int val, char *arg));
void cmd_args_free(struct cmd_args *a);

/* A program with subcommands: parses, and calls the one that is named.  on_option: of cmd_parse(). */
struct cmd_subcommand {
	const char *name;
	int (*fn)(const struct cmd_args *);
	const struct poptOption *options;
	const char *synopsis;
	unsigned min, max;
	const char *help;
	int (*on_option)(int val, char *arg);
};
int cmd_subcommands(int argc, char **argv, const char *program, const struct cmd_subcommand *table, size_t n);

const char *cmd_version(void);
/* Says "NAME: text" on stderr; the exit code. */
int cmd_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int cmd_exit_code(int r);
/* The library's text for r, of a pool or (NULL) of the thread. */
int cmd_failed(const struct vol_pool *pool, int r);
/* To stdout unless -q. */
void cmd_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* -y, or yes on the terminal.  No terminal and no -y: no. */
bool cmd_confirm(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* "10.00g", in --units. */
const char *cmd_size(uint64_t bytes);

/* Opens a pool, with -t for nothing but tests; on failure *exit is set and NULL is answered. */
struct vol_pool *cmd_open(const char *name, unsigned flags, int *exit);
/* Closes; the worse of `code` and what closing gave. */
int cmd_close(struct vol_pool *pool, int code);
/* As vol_call(): adds "test" for -t, shows warnings and progress on a terminal; {"part"} objects go to `part`,
 * unwrapped.  Takes the request over.  The text was shown already when it fails. */
int cmd_call(struct vol_pool *pool, struct json_object *request, int (*part)(void *arg, struct json_object *part),
	     void *arg, struct json_object **result);
struct json_object *cmd_request(const char *op);
/* A request about a volume. */
struct json_object *cmd_request_on(const char *op, const char *volume);
/* POOL/VOLUME, both needed; else a usage error is said and its code answered. */
int cmd_parse_volume(const char *text, char pool[VOL_NAME_SIZE], char volume[VOL_NAME_SIZE]);
int cmd_parse_pool(const char *text, char pool[VOL_NAME_SIZE]);
/* The same; the path of a device, or a file, stands for the pool of which it is a member. */
int cmd_parse_pool_of(const char *text, char pool[VOL_NAME_SIZE]);
/* A new name: NAME or POOL/NAME with the same pool. */
int cmd_parse_new_name(const char *text, const char *pool, char volume[VOL_NAME_SIZE]);
/* "KEY=VALUE" into the object; KEY= or KEY alone takes it away (null). */
int cmd_parse_attr(const char *text, struct json_object *attrs);
/* y or n (as LVM's -a, -p…): 1, 0, or -1 and a usage error is said. */
int cmd_parse_yes_no(const char *option, const char *text);
/* SIZE, rounded up to 4 KiB, or "all": 0, or a usage error is said and its code answered; then "reserve" of a request. */
int cmd_check_reserve(const char *text);
void cmd_set_reserve(struct json_object *request, const char *text);
/* A path made absolute, malloc'd. */
char *cmd_absolute(const char *path);

/* ---- reports ------------------------------------------------------------ */

enum cmd_type { CMD_TEXT, CMD_SIZE, CMD_NUMBER, CMD_TIME /* ns since 1970 */, CMD_PERCENT /* double */ };
struct cmd_field { const char *name, *heading; enum cmd_type type; const char *help; };
struct cmd_report {
	const char *kind;              /* "volume": the name of the list in JSON */
	const struct cmd_field *field; /* ends with name NULL */
	const char *defaults;          /* field names, comma-separated */
	struct json_object *rows;      /* array of objects keyed by field name */
	const struct cmd_field *chosen[64];
	unsigned nchosen;
};
/* Takes in -o, -O, --units, --reportformat; one report at a time.  -o help lists the fields and ends the process. */
int cmd_report_init(struct cmd_report *r, const char *kind, const struct cmd_field *fields, const char *defaults);
bool cmd_report_wants(const struct cmd_report *r, const char *field);
void cmd_report_add(struct cmd_report *r, struct json_object *row);
/* Prints and frees the rows. */
void cmd_report_print(struct cmd_report *r);
bool cmd_json(void); /* --reportformat json */

#endif
