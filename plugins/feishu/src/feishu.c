/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages to a custom bot of a Feishu (Lark) group, signed where the bot asks for it.
 * Source: Feishu open platform, "Custom bot usage guide" (signature, message types, error codes).
 */
#include "gw1_notify.h"

enum {
    TEXT_BYTES = 15000, /* the service takes 20 KB a request, the JSON around it included */
    TITLE_BYTES = 400
};

static const char *color(gw_value severity) {
    if (gw_is(severity, "critical")) return "carmine";
    if (gw_is(severity, "major")) return "red";
    if (gw_is(severity, "minor")) return "yellow";
    return gw_is(severity, "warning") ? "orange" : "blue";
}

static void add_headline(gw_out *out, const gw_notification *n) {
    gw_add(out, "["); gw_add_value(out, n->severity); gw_add(out, "] "); gw_add_lines(out, n->title, " ");
}

static void add_origin(gw_out *out, const gw_notification *n) {
    gw_add_value(out, n->at);
    if (n->device.len) { gw_add(out, " "); gw_add_value(out, n->device); }
}

static void write_plain(gw_out *out, const gw_notification *n) {
    gw_key(out, "msg_type"); gw_lit(out, "text");
    gw_key(out, "content"); gw_map(out, 1);
    gw_key(out, "text");
    uint8_t *head = gw_str_open(out);
    add_headline(out, n);
    gw_add(out, "\n"); add_origin(out, n);
    if (n->link.len) { gw_add(out, "\n"); gw_add_value(out, n->link); }
    if (n->text.len) { gw_add(out, "\n"); gw_add_value(out, n->text); }
    gw_str_close(out, head, TEXT_BYTES);
}

static void write_card(gw_out *out, const gw_notification *n) {
    gw_key(out, "msg_type"); gw_lit(out, "interactive");
    gw_key(out, "card"); gw_map(out, 2);
    gw_key(out, "header"); gw_map(out, 2);
    gw_key(out, "template"); gw_cstr(out, color(n->severity));
    gw_key(out, "title"); gw_map(out, 2);
    gw_key(out, "tag"); gw_lit(out, "plain_text");
    gw_key(out, "content");
    uint8_t *title = gw_str_open(out);
    add_headline(out, n);
    gw_str_close(out, title, TITLE_BYTES);
    gw_key(out, "elements"); gw_array(out, 1); gw_map(out, 2);
    gw_key(out, "tag"); gw_lit(out, "markdown");
    gw_key(out, "content");
    uint8_t *head = gw_str_open(out);
    add_origin(out, n);
    if (n->link.len) { gw_add(out, "\n[link]("); gw_add_value(out, n->link); gw_add(out, ")"); }
    if (n->text.len) { gw_add(out, "\n"); gw_add_value(out, n->text); }
    gw_str_close(out, head, TEXT_BYTES);
}

/* sign = base64(HMAC-SHA256(key = timestamp "\n" secret, data = nothing)), beside the timestamp in seconds. */
static void write_signature(gw_out *out, uint64_t now_s) {
    gw_key(out, "timestamp");
    uint8_t *head = gw_str_open(out);
    gw_add_uint(out, now_s);
    gw_str_close(out, head, 20);
    gw_key(out, "sign"); gw_hmac_open(out, "base64");
    gw_key(out, "key"); gw_array(out, 2);
    head = gw_str_open(out);
    gw_add_uint(out, now_s); gw_add(out, "\n");
    gw_str_close(out, head, 21);
    gw_secret(out, "key");
    gw_key(out, "data"); gw_array(out, 0);
}

static int32_t notify(gw_out *out, const gw_args *args) {
    gw_notification n;
    bool plain;
    GW_TRY(gw_notification_read(&n, args));
    GW_TRY(gw_format_setting(&n, "card", "text", &plain));
    bool sign = gw_has_secret(&n, "key");
    gw_request_open(out, 1);
    gw_key(out, "json"); gw_map(out, sign ? 4 : 2);
    if (sign) write_signature(out, n.now_ms / 1000);
    if (plain) write_plain(out, &n);
    else write_card(out, &n);
    return GW_WRITTEN;
}

static const int64_t AGAIN[] = {11232, 11233, 11247}; /* too many requests, in three ways */
enum { BAD_REQUEST = 9499 };                          /* a body that it cannot read, or too many requests */
static const gw_reply_shape REPLY = {
    .code = "code", .words = "msg", .old_code = "StatusCode", .again = AGAIN, .again_count = 3, .wait_s = 30,
    .again_if_said = BAD_REQUEST,
};

GW_NOTIFIER(notify, &REPLY)
