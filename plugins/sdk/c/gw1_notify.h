/* SPDX-License-Identifier: Apache-2.0
 *
 * gw1_notify.h - what a notify plugin is asked, and what it answers.
 *
 * Owns the arguments of {op: "notify"} and {op: "judge"}, texts written in pieces, expressions for secrets, and the
 * reading of a service's JSON reply. Knows no service.
 *
 * {op: "notify", channel: {name, args, secrets: [names]}, message: {id, title, text, severity, device, at, link}, now_ms}
 *     -> {actions: [{http: {url_ref, method?, query?, headers?, json | body}}]}
 * {op: "judge", channel, status, body} -> {ok, error?, retry_after_s?}
 *
 * A plugin never sees a secret: where one belongs it writes {"$secret": name}, or
 * {"$hmac_sha256": {key: [parts], data: [parts], encoding}} whose parts are texts and secrets, and the host fills it in.
 */
#ifndef GW1_NOTIFY_H
#define GW1_NOTIFY_H

#include "gw1_args.h"

/* ---- What is asked ---------------------------------------------------------------------------------------------- */

typedef struct {
    gw_args channel, settings, message;
    gw_value title, text, severity, device, at, link; /* each a text, empty where it is missing */
    uint64_t now_ms;
} gw_notification;

GW_FN int32_t gw_map_arg(const gw_args *args, const char *key, gw_args *to) {
    gw_in value;
    if (gw_arg_value(args, key).type != GW_T_MAP || !gw_arg(args, key, &value)) {
        return gw_unwanted_arg(args, key, "a map");
    }
    return gw_args_read(to, value);
}

/* A text; a missing one is empty. */
GW_FN int32_t gw_text_arg(const gw_args *args, const char *key, gw_value *to) {
    *to = gw_arg_value(args, key);
    if (to->type == GW_T_END) *to = (gw_value){.type = GW_T_STR, .text = "", .len = 0};
    return to->type == GW_T_STR ? GW_WRITTEN : gw_unwanted_arg(args, key, "a text");
}

GW_FN int32_t gw_notification_read(gw_notification *n, const gw_args *args) {
    gw_value now = gw_arg_value(args, "now_ms");
    GW_TRY(gw_map_arg(args, "channel", &n->channel));
    GW_TRY(gw_map_arg(args, "message", &n->message));
    n->settings.count = 0;
    if (gw_arg_value(&n->channel, "args").type != GW_T_END) GW_TRY(gw_map_arg(&n->channel, "args", &n->settings));
    if (now.type != GW_T_UINT) return gw_unwanted_arg(args, "now_ms", "epoch milliseconds");
    n->now_ms = now.uint;
    GW_TRY(gw_text_arg(&n->message, "title", &n->title));
    GW_TRY(gw_text_arg(&n->message, "text", &n->text));
    GW_TRY(gw_text_arg(&n->message, "severity", &n->severity));
    GW_TRY(gw_text_arg(&n->message, "device", &n->device));
    GW_TRY(gw_text_arg(&n->message, "at", &n->at));
    GW_TRY(gw_text_arg(&n->message, "link", &n->link));
    return n->title.len ? GW_WRITTEN : gw_bad_arg("title", "is missing: give a text");
}

/* Whether the operator set a secret of that name. */
GW_FN bool gw_has_secret(const gw_notification *n, const char *name) {
    gw_in items;
    if (!gw_arg(&n->channel, "secrets", &items)) return false;
    gw_value list = gw_next(&items);
    for (uint32_t i = 0; list.type == GW_T_ARRAY && i < list.len; i++) {
        gw_value one = gw_next(&items);
        if (one.type == GW_T_END) return false;
        if (gw_is(one, name)) return true;
    }
    return false;
}

/* One of two formats by the setting `format`; the first where it is not set. */
GW_FN int32_t gw_format_setting(const gw_notification *n, const char *first, const char *second, bool *is_second) {
    gw_value format = gw_arg_value(&n->settings, "format");
    *is_second = gw_is(format, second);
    if (*is_second || format.type == GW_T_END || gw_is(format, first)) return GW_WRITTEN;
    gw_text t = gw_refusal_begin();
    gw_say(&t, "args.format: write ");
    gw_say(&t, first);
    gw_say(&t, " or ");
    gw_say(&t, second);
    return gw_refusal_end(GW_BAD_CONFIG, &t);
}

enum { GW_PEOPLE_MOST = 50 }; /* people that one message calls on */

/* A setting that lists people, as texts; none where it is missing. The reader stands before the first. */
GW_FN int32_t gw_people_setting(const gw_notification *n, const char *key, gw_in *items, uint32_t *count) {
    *count = 0;
    if (gw_arg_value(&n->settings, key).type == GW_T_END) return GW_WRITTEN;
    GW_TRY(gw_arg_list(&n->settings, key, GW_PEOPLE_MOST, items, count));
    gw_in all = *items;
    for (uint32_t i = 0; i < *count; i++) {
        gw_value one = gw_next(&all);
        if (one.type != GW_T_STR) return gw_bad_item(key, i, "must be a text");
    }
    return GW_WRITTEN;
}

/* ---- Texts in pieces -------------------------------------------------------------------------------------------- */

/* Open a text, add to it with gw_add and gw_add_value, close it. */
GW_FN uint8_t *gw_str_open(gw_out *o) { uint8_t *head = o->at; gw_tag32(o, 0xdb, 0); return head; }
GW_FN void gw_add(gw_out *o, const char *text) { gw_raw(o, text, strlen(text)); }
GW_FN void gw_add_value(gw_out *o, gw_value v) { gw_raw(o, v.text, v.len); }
GW_FN void gw_add_uint(gw_out *o, uint64_t v) {
    char digits[20];
    int n = 0;
    do digits[n++] = (char)('0' + v % 10); while (v /= 10);
    while (n) gw_raw(o, &digits[--n], 1);
}
/* Add a text with every line break replaced: services read one line break as none. */
GW_FN void gw_add_lines(gw_out *o, gw_value v, const char *line_break) {
    for (uint32_t i = 0; i < v.len; i++) {
        if (v.text[i] == '\n') gw_add(o, line_break);
        else if (v.text[i] != '\r') gw_raw(o, v.text + i, 1);
    }
}

/* Length of the longest prefix of at most `most` bytes that ends between two characters. */
GW_FN uint32_t gw_utf8_cut(const uint8_t *text, uint32_t len, uint32_t most) {
    if (len <= most) return len;
    while (most && (text[most] & 0xc0) == 0x80) most--;
    return most;
}

/* Close a text; what is longer than `most` bytes is cut between two characters and ends in "...". */
GW_FN void gw_str_close(gw_out *o, uint8_t *head, uint32_t most) {
    if (o->full) return;
    uint32_t len = (uint32_t)(o->at - head - 5);
    if (len > most) {
        len = gw_utf8_cut(head + 5, len, most - 3);
        memcpy(head + 5 + len, "...", 3);
        len += 3;
        o->at = head + 5 + len;
    }
    for (int i = 0; i < 4; i++) head[1 + i] = (uint8_t)(len >> (24 - 8 * i));
}

/* ---- Expressions ------------------------------------------------------------------------------------------------ */

GW_FN void gw_secret(gw_out *o, const char *name) {
    gw_map(o, 1);
    gw_key(o, "$secret"); gw_cstr(o, name);
}
/* Open {"$hmac_sha256": {encoding, key, data}}; write both lists after it, `key` first. */
GW_FN void gw_hmac_open(gw_out *o, const char *encoding) {
    gw_map(o, 1);
    gw_key(o, "$hmac_sha256"); gw_map(o, 3);
    gw_key(o, "encoding"); gw_cstr(o, encoding);
}

/* Open {actions: [{http: {url_ref: "url", ...}}]} with so many further pairs of `http`. */
GW_FN void gw_request_open(gw_out *o, uint32_t pairs) {
    gw_map(o, 1);
    gw_key(o, "actions"); gw_array(o, 1);
    gw_map(o, 1);
    gw_key(o, "http"); gw_map(o, pairs + 1);
    gw_key(o, "url_ref"); gw_lit(o, "url");
}

/* ---- Replies ---------------------------------------------------------------------------------------------------- */

/* A piece of JSON text. */
typedef struct { const char *at, *end; } gw_json;

GW_FN void gw_json_blank(gw_json *j) {
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r')) j->at++;
}
/* Step over a string at its opening quote; false where it does not end. */
GW_FN bool gw_json_string(gw_json *j) {
    for (j->at++; j->at < j->end; j->at++) {
        if (*j->at == '\\') j->at++;
        else if (*j->at == '"') { j->at++; return true; }
    }
    return false;
}
/* Whether a number or a word (true, null) ends before this character. */
GW_FN bool gw_json_ends(char c) {
    return c == ',' || c == ':' || c == ']' || c == '}' || c == '"' || c == '{' || c == '[' || (uint8_t)c <= ' ';
}
/* Step over one value; false where it does not end. */
GW_FN bool gw_json_value(gw_json *j) {
    uint32_t depth = 0;
    do {
        gw_json_blank(j);
        if (j->at >= j->end) return false;
        char c = *j->at;
        if (c == '"') { if (!gw_json_string(j)) return false; }
        else if (c == '{' || c == '[') { depth++; j->at++; }
        else if (c == '}' || c == ']') { if (!depth) return false; depth--; j->at++; }
        else if (c == ',' || c == ':') { if (!depth) return false; j->at++; }
        else do j->at++; while (j->at < j->end && !gw_json_ends(*j->at));
    } while (depth);
    return true;
}
/* The value of a key of the object; false where it has none, or is no object. */
GW_FN bool gw_json_member(gw_json object, const char *name, gw_json *value) {
    size_t n = strlen(name);
    gw_json_blank(&object);
    if (object.at >= object.end || *object.at++ != '{') return false;
    for (;;) {
        gw_json_blank(&object);
        if (object.at >= object.end || *object.at != '"') return false;
        const char *key = object.at + 1;
        if (!gw_json_string(&object)) return false;
        bool found = (size_t)(object.at - 1 - key) == n && memcmp(key, name, n) == 0;
        gw_json_blank(&object);
        if (object.at >= object.end || *object.at++ != ':') return false;
        gw_json_blank(&object);
        value->at = object.at;
        if (!gw_json_value(&object)) return false;
        value->end = object.at;
        if (found) return true;
        gw_json_blank(&object);
        if (object.at >= object.end || *object.at++ != ',') return false;
    }
}
GW_FN bool gw_json_int(gw_json value, int64_t *to) {
    bool minus = value.at < value.end && *value.at == '-';
    if (minus) value.at++;
    if (value.at == value.end || value.end - value.at > 15) return false;
    for (*to = 0; value.at < value.end; value.at++) {
        if (*value.at < '0' || *value.at > '9') return false;
        *to = *to * 10 + (*value.at - '0');
    }
    if (minus) *to = -*to;
    return true;
}

enum { GW_REASON_BYTES = 300 }; /* of a service's own words */

/* A character of the basic plane as UTF-8; half of a pair shows as "?". */
GW_FN void gw_add_char(gw_out *o, uint32_t c) {
    if (c < 0x80) gw_byte(o, (uint8_t)c);
    else if (c < 0x800) gw_tag8(o, (uint8_t)(0xc0 | c >> 6), (uint8_t)(0x80 | (c & 0x3f)));
    else if (c >= 0xd800 && c < 0xe000) gw_byte(o, '?');
    else gw_tag16(o, (uint8_t)(0xe0 | c >> 12), (uint16_t)(0x8080 | (c << 2 & 0x3f00) | (c & 0x3f)));
}
/* Four hexadecimal digits; false where they are none. */
GW_FN bool gw_json_hex4(const char *at, const char *end, uint32_t *to) {
    if (end - at < 4) return false;
    *to = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        if (c >= '0' && c <= '9') *to = *to << 4 | (uint32_t)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f') *to = *to << 4 | (uint32_t)((c | 32) - 'a' + 10);
        else return false;
    }
    return true;
}
/* Add the text of a JSON string; line breaks and the like show as spaces. */
GW_FN void gw_add_json(gw_out *o, gw_json value) {
    if (value.end - value.at < 2 || *value.at != '"') return;
    const char *end = value.end - 1;
    uint32_t c;
    for (const char *at = value.at + 1; at < end; at++) {
        if (*at != '\\') { gw_raw(o, at, 1); continue; }
        if (++at == end) return;
        if (*at == '"' || *at == '\\' || *at == '/') gw_raw(o, at, 1);
        else if (*at == 'u' && gw_json_hex4(at + 1, end, &c)) { gw_add_char(o, c); at += 4; }
        else gw_add(o, " ");
    }
}

/* How a service says in its JSON what became of a message: a code, 0 for success, and words. */
typedef struct {
    const char *code, *words;
    const char *old_code;   /* an older name of the code, or NULL */
    const int64_t *again;   /* codes that do not last */
    uint32_t again_count;
    double wait_s;          /* before a message is tried again after one of those */
    int64_t again_if_said;  /* a code that does not last only where the words speak of too many messages; 0: none */
} gw_reply_shape;

/* Whether a service's words contain one of ours, which are in small letters; case does not matter. */
GW_FN bool gw_json_says(gw_json value, const char *wanted) {
    size_t n = strlen(wanted), same = 0;
    for (; (size_t)(value.end - value.at) >= n && same < n; value.at++) {
        for (same = 0; same < n; same++) {
            char c = value.at[same];
            if ((c >= 'A' && c <= 'Z' ? c | 32 : c) != wanted[same]) break;
        }
    }
    return same == n;
}
GW_FN bool gw_speaks_of_too_many(gw_json words) {
    return gw_json_says(words, "too many") || gw_json_says(words, "rate limit") || gw_json_says(words, "frequen");
}

GW_FN int32_t gw_judge(gw_out *out, const gw_args *args, const gw_reply_shape *shape) {
    gw_value body;
    gw_json value;
    int64_t code;
    GW_TRY(gw_text_arg(args, "body", &body));
    gw_json reply = {.at = body.text, .end = body.text + body.len};
    bool told = gw_json_member(reply, shape->code, &value) && gw_json_int(value, &code);
    if (!told && shape->old_code) told = gw_json_member(reply, shape->old_code, &value) && gw_json_int(value, &code);
    if (!told) {
        gw_map(out, 2);
        gw_key(out, "ok"); gw_bool(out, false);
        gw_key(out, "error");
        uint8_t *head = gw_str_open(out);
        gw_add(out, "the service answered status ");
        gw_value status = gw_arg_value(args, "status");
        gw_add_uint(out, status.type == GW_T_UINT ? status.uint : 0);
        gw_add(out, " without ");
        gw_add(out, shape->code);
        gw_str_close(out, head, GW_REASON_BYTES);
        return GW_WRITTEN;
    }
    bool again = false;
    for (uint32_t i = 0; i < shape->again_count; i++) again = again || shape->again[i] == code;
    bool has_words = gw_json_member(reply, shape->words, &value);
    if (has_words && code == shape->again_if_said) again = gw_speaks_of_too_many(value);
    gw_map(out, code ? again ? 3 : 2 : 1);
    gw_key(out, "ok"); gw_bool(out, code == 0);
    if (code == 0) return GW_WRITTEN;
    gw_key(out, "error");
    uint8_t *head = gw_str_open(out);
    gw_add(out, shape->code);
    gw_add(out, code < 0 ? " -" : " ");
    gw_add_uint(out, (uint64_t)(code < 0 ? -code : code));
    if (has_words) {
        gw_add(out, ": ");
        gw_add_json(out, value);
    }
    gw_str_close(out, head, GW_REASON_BYTES);
    if (again) { gw_key(out, "retry_after_s"); gw_f64(out, shape->wait_s); }
    return GW_WRITTEN;
}

/* ---- The call ---------------------------------------------------------------------------------------------------- */

typedef int32_t (*gw_notify_fn)(gw_out *out, const gw_args *args);

GW_FN int32_t gw_notify_call(gw_out *out, gw_in in, gw_notify_fn notify, const gw_reply_shape *shape) {
    gw_args args;
    GW_TRY(gw_args_read(&args, in));
    gw_value op = gw_arg_value(&args, "op");
    if (gw_is(op, "notify")) return notify(out, &args);
    if (gw_is(op, "judge")) return gw_judge(out, &args, shape);
    return gw_unwanted_arg(&args, "op", "\"notify\" or \"judge\"");
}

/* Export gw_call for a service that answers in JSON: what writes its request, and how its reply is read. */
#define GW_NOTIFIER(notify, shape) \
    static int32_t gw_notifier(gw_out *out, gw_in in, uint32_t aux) { return gw_notify_call(out, in, notify, shape); } \
    GW_CALLER(gw_notifier)

#endif
