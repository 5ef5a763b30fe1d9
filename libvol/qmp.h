/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A client of QEMU's machine protocol: JSON, a line each, on a unix socket.
 *
 * Nothing that the other side sends is believed: lines, nesting and what is kept are bounded, and
 * so is the time of each call ($VD_SERVER_TIMEOUT seconds, default 10), whatever comes meanwhile.
 * Nothing is retried.  Texts are in vol_error(NULL).
 */
#ifndef VOL_QMP_H
#define VOL_QMP_H

#include "host.h"
#include "json.h"

struct qmp;

/* Connects, and has it take commands. -ENOTCONN nobody listens there: it is off; -ETIMEDOUT it does
 * not answer; -EPROTO what answers is no QEMU; -ECONNRESET; -EINTR, unless `finish`: what undoes
 * something goes on. */
int qmp_open(const char *path, bool finish, struct qmp **out) __must_check;
void qmp_close(struct qmp *q); /* NULL is allowed */
/* The process that listens. 0: not one that can be seen from here. */
pid_t qmp_pid(const struct qmp *q);

/* Executes one command; takes `args` (may be NULL) over.  *result (may be NULL): json_object_put().
 * As qmp_open(), and -EREMOTEIO: it was refused; then qmp_class() and qmp_desc() tell why, in printable
 * characters. */
int qmp_call(struct qmp *q, const char *command, struct json_object *args, struct json_object **result) __must_check;
const char *qmp_class(const struct qmp *q);
const char *qmp_desc(const struct qmp *q);

/* Waits until device `id` is gone; when that came while another call waited, it is known. */
int qmp_wait_deleted(struct qmp *q, const char *id) __must_check;

#endif
