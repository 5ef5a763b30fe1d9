/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Short forms over json-c. A getter answers false for "absent" and for "of another type". */
#ifndef VOL_JSON_H
#define VOL_JSON_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline void json_set(struct json_object *o, const char *key, struct json_object *v)
{
	json_object_object_add(o, key, v);
}
static inline void json_set_str(struct json_object *o, const char *key, const char *s)
{
	json_object_object_add(o, key, s ? json_object_new_string(s) : NULL);
}
/* A fixed field of a disk structure, which need not end in NUL. */
static inline void json_set_field(struct json_object *o, const char *key, const char *s, size_t size)
{
	json_object_object_add(o, key, json_object_new_string_len(s, (int)strnlen(s, size)));
}
static inline void json_set_u64(struct json_object *o, const char *key, uint64_t v)
{
	json_object_object_add(o, key, json_object_new_uint64(v));
}
static inline void json_set_bool(struct json_object *o, const char *key, bool v)
{
	json_object_object_add(o, key, json_object_new_boolean(v));
}

static inline bool json_get(struct json_object *o, const char *key, enum json_type type, struct json_object **v)
{
	return json_object_object_get_ex(o, key, v) && json_object_is_type(*v, type);
}
/* A string with a NUL inside is no string here. */
static inline bool json_get_str(struct json_object *o, const char *key, const char **s)
{
	struct json_object *v;

	if (!json_get(o, key, json_type_string, &v))
		return false;
	if (strlen(json_object_get_string(v)) != (size_t)json_object_get_string_len(v))
		return false;
	*s = json_object_get_string(v);
	return true;
}
static inline bool json_get_u64(struct json_object *o, const char *key, uint64_t *n)
{
	struct json_object *v;

	if (!json_get(o, key, json_type_int, &v) || (json_object_get_int64(v) < 0))
		return false;
	*n = json_object_get_uint64(v);
	return true;
}
static inline bool json_get_bool(struct json_object *o, const char *key, bool *b)
{
	struct json_object *v;

	if (!json_get(o, key, json_type_boolean, &v))
		return false;
	*b = json_object_get_boolean(v);
	return true;
}
static inline uint64_t json_u64(struct json_object *o, const char *key)
{
	uint64_t n = 0;

	return json_get_u64(o, key, &n) ? n : 0;
}
static inline const char *json_str(struct json_object *o, const char *key)
{
	const char *s = "";

	return json_get_str(o, key, &s) ? s : "";
}
static inline bool json_flag(struct json_object *o, const char *key)
{
	bool b = false;

	return json_get_bool(o, key, &b) && b;
}

#endif
