/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Programs that are run to ask or tell somebody something, for a bounded time.  Texts are in vol_error(NULL). */
#ifndef VOL_CHILD_H
#define VOL_CHILD_H

#include "host.h"

struct child {
	const char *input;  /* its standard input, a file: "/dev/stdin" may be opened, too */
	unsigned seconds;   /* then it is killed */
	bool finish;        /* what undoes something goes on: no -EINTR */
	int keep;           /* is open in it as 3, so that a lock is held until it has ended, too, or -1 */
	char *text;         /* what it says, as far as it fits in `size` */
	size_t size, n;
};

/* 0: it ended well.  -EIO: it did not (text: what it said on its standard error, in lines of printable characters, without
 * its own name); -ETIMEDOUT (no text); -EINTR; another: it could not be run. */
int child_run(char *const argv[], struct child *c) __must_check;

/* One that is asked several things, a line each; it ends when nobody can ask it any more. */
struct child_talk { pid_t pid; int io, err, process; };
int child_talk(char *const argv[], struct child_talk *t) __must_check;
/* The line that it answers, without its end, in `text`.  Unless 0 is answered nothing is left but child_hang_up().  As of
 * child_run(); -EIO also when it ended well; -EMSGSIZE: the line is longer than `size` - 1. */
int child_ask(struct child_talk *t, const char *name, const char *line, unsigned seconds, bool finish, char *text, size_t size) __must_check;
void child_hang_up(struct child_talk *t);

#endif
