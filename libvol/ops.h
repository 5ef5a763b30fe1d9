/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the requests' files share. Each op_*() is one request; see ops.c for the list. */
#ifndef VOL_OPS_H
#define VOL_OPS_H

#include "handle.h"
#include "json.h"

typedef int (*op_fn)(struct vol_request *rq, struct json_object *result);

int op_list(struct vol_request *rq, struct json_object *result);
int op_create(struct vol_request *rq, struct json_object *result);
int op_remove(struct vol_request *rq, struct json_object *result);
int op_rename(struct vol_request *rq, struct json_object *result);
int op_resize(struct vol_request *rq, struct json_object *result);
int op_reserve(struct vol_request *rq, struct json_object *result);
int op_set(struct vol_request *rq, struct json_object *result);
int op_lock(struct vol_request *rq, struct json_object *result);
int op_unlock(struct vol_request *rq, struct json_object *result);
int op_pointer_add(struct vol_request *rq, struct json_object *result);
int op_pointer_set(struct vol_request *rq, struct json_object *result);
int op_pointer_del(struct vol_request *rq, struct json_object *result);
int op_snapshot(struct vol_request *rq, struct json_object *result);
int op_rollback(struct vol_request *rq, struct json_object *result);
int op_diff(struct vol_request *rq, struct json_object *result);
int op_usage(struct vol_request *rq, struct json_object *result);
int op_server_add(struct vol_request *rq, struct json_object *result);
int op_server_list(struct vol_request *rq, struct json_object *result);
int op_server_remove(struct vol_request *rq, struct json_object *result);

/* An error's text; answers r. */
#define op_fail(rq, r, ...) vol_failbuf(&(rq)->err, r, __VA_ARGS__)
/* A remark that the user should read though the operation goes on: "warnings" of the result. */
void op_warn(struct vol_request *rq, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* vol_pool_view(), and said. */
int op_view(struct vol_request *rq) __must_check;
/* The text for what the engine answered: "volume p/x cannot be …: …". */
int op_error(struct vol_request *rq, int r, const char *volume, const char *what);

/* The text for -ENOSPC where a volume's reservation is in the way: it "cannot be …". */
int op_no_promise(struct vol_request *rq, const char *volume, const char *what, uint64_t wanted);

/* The text for what cannot be done, or had, while the kernel has the pool open. */
int op_not_in_kernel(struct vol_request *rq, const char *what);

/* A volume's name in the request. -EINVAL: absent or breaks the rule. */
int op_arg_volume(struct vol_request *rq, const char *key, const char **name) __must_check;
/* -EROFS, and said, when the pool takes no changes. */
int op_check_writable(struct vol_request *rq, const char *name, const char *what) __must_check;
/* The volume itself, and its record when info is not NULL. */
int op_find(struct vol_request *rq, const char *name, uint32_t *id, struct vd_volume_info *info) __must_check;
/* A server described in the pool. -ENOENT, and said. */
int op_find_server(struct vol_request *rq, const char *name, uint32_t *id) __must_check;
int op_holder(struct vol_request *rq, struct vd_disk_holder *who) __must_check;
/* The volume is locked by that process. */
bool op_holds(const struct vd_volume_info *info, const struct vd_disk_holder *who);
/* Nobody but who asks holds its lock; a stale lock is broken with a warning. -EACCES. */
int op_check_lock(struct vol_request *rq, const struct vd_volume_info *info) __must_check;

/* Takes away the open pointers that a server which is gone had stored for its clients, from *info too. */
int op_drop_dead_clients(struct vol_request *rq, const char *name, uint32_t id, struct vd_volume_info *info) __must_check;

/* Whether the pool is damaged, and what is lost then: a list of faults, as pool-check has them. */
bool op_lost(struct vol_request *rq, struct json_object **list, uint64_t *left_out) __must_check;

/* Attributes as the engine keeps them, "key=value\n…", and as requests and answers do. -EINVAL, -E2BIG. */
struct json_object *op_attrs_json(const char *attrs);
int op_attrs_text(struct vol_request *rq, struct json_object *attrs, char buf[VD_ATTRS_MAX + 1]) __must_check;

/* Sends {"part": {key: list}}; takes the list over.  Non-zero: the asker wants no more. */
int op_send(struct vol_request *rq, const char *key, struct json_object *list) __must_check;
/* For the engine's progress arguments: arg is the request. */
int op_progress(void *rq, unsigned permille);

#endif
