/* SPDX-License-Identifier: Apache-2.0
 *
 * A notification as JSON to any HTTP receiver, with a signature over the body where a key is set.
 */
#include "gw1_notify.h"

/* A JSON string. Source: RFC 8259, 7. */
static void add_quoted(gw_out *out, gw_value v) {
    gw_add(out, "\"");
    for (uint32_t i = 0; i < v.len; i++) {
        uint8_t c = (uint8_t)v.text[i];
        if (c == '"' || c == '\\') { gw_add(out, "\\"); gw_raw(out, &c, 1); }
        else if (c == '\n') gw_add(out, "\\n");
        else if (c < 0x20) {
            char escape[6] = {'\\', 'u', '0', '0', "0123456789abcdef"[c >> 4], "0123456789abcdef"[c & 15]};
            gw_raw(out, escape, 6);
        } else gw_raw(out, &c, 1);
    }
    gw_add(out, "\"");
}

static void add_pair(gw_out *out, const char *key, gw_value v) {
    gw_add(out, ",\""); gw_add(out, key); gw_add(out, "\":");
    if (v.len) add_quoted(out, v);
    else gw_add(out, "null");
}

static void add_body(gw_out *out, const gw_notification *n, gw_value id, gw_value channel) {
    uint8_t *head = gw_str_open(out);
    gw_add(out, "{\"id\":"); add_quoted(out, id);
    add_pair(out, "channel", channel);
    add_pair(out, "title", n->title);
    gw_add(out, ",\"text\":"); add_quoted(out, n->text);
    add_pair(out, "severity", n->severity);
    add_pair(out, "device", n->device);
    add_pair(out, "at", n->at);
    add_pair(out, "link", n->link);
    gw_add(out, "}");
    gw_str_close(out, head, UINT32_MAX);
}

static int32_t notify(gw_out *out, const gw_args *args) {
    gw_notification n;
    gw_value id, channel;
    GW_TRY(gw_notification_read(&n, args));
    GW_TRY(gw_text_arg(&n.message, "id", &id));
    GW_TRY(gw_text_arg(&n.channel, "name", &channel));
    bool sign = gw_has_secret(&n, "key"), authorize = gw_has_secret(&n, "authorization");
    gw_request_open(out, 2);
    gw_key(out, "headers"); gw_map(out, 1 + sign + authorize);
    gw_key(out, "Content-Type"); gw_lit(out, "application/json");
    if (authorize) { gw_key(out, "Authorization"); gw_secret(out, "authorization"); }
    if (sign) {
        gw_key(out, "X-Signature"); gw_hmac_open(out, "hex");
        gw_key(out, "key"); gw_array(out, 1);
        gw_secret(out, "key");
        gw_key(out, "data"); gw_array(out, 1);
        add_body(out, &n, id, channel);
    }
    gw_key(out, "body");
    add_body(out, &n, id, channel);
    return GW_WRITTEN;
}

/* The status says it all: the host takes no other than 2xx for a success. */
static int32_t judge(gw_out *out) {
    gw_map(out, 1);
    gw_key(out, "ok"); gw_bool(out, true);
    return GW_WRITTEN;
}

static int32_t call(gw_out *out, gw_in in, uint32_t aux) {
    gw_args args;
    GW_TRY(gw_args_read(&args, in));
    gw_value op = gw_arg_value(&args, "op");
    if (gw_is(op, "notify")) return notify(out, &args);
    if (gw_is(op, "judge")) return judge(out);
    return gw_unwanted_arg(&args, "op", "\"notify\" or \"judge\"");
}

GW_CALLER(call)
