/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages to a custom robot of a DingTalk group, signed where the robot asks for it.
 * Source: DingTalk open platform, "Custom robot access" (signature, message types, error codes).
 */
#include "gw1_notify.h"

enum {
    TEXT_BYTES = 15000, /* the service takes 20,000 bytes a message, the JSON around it included */
    TITLE_BYTES = 200
};

/* `@number` in the text is what lights up; the list beside it is what rings. */
static void add_mentions(gw_out *out, gw_in mobiles, uint32_t count) {
    if (count) gw_add(out, "\n\n");
    for (uint32_t i = 0; i < count; i++) {
        gw_add(out, i ? " @" : "@");
        gw_add_value(out, gw_next(&mobiles));
    }
}

static void write_plain(gw_out *out, const gw_notification *n, gw_in mobiles, uint32_t count) {
    gw_key(out, "text"); gw_map(out, 1);
    gw_key(out, "content");
    uint8_t *head = gw_str_open(out);
    gw_add(out, "["); gw_add_value(out, n->severity); gw_add(out, "] "); gw_add_value(out, n->title);
    add_mentions(out, mobiles, count);
    gw_add(out, "\n"); gw_add_value(out, n->at);
    if (n->device.len) { gw_add(out, " "); gw_add_value(out, n->device); }
    if (n->link.len) { gw_add(out, "\n"); gw_add_value(out, n->link); }
    if (n->text.len) { gw_add(out, "\n"); gw_add_value(out, n->text); } /* last: it is what may be cut */
    gw_str_close(out, head, TEXT_BYTES);
}

static void write_markdown(gw_out *out, const gw_notification *n, gw_in mobiles, uint32_t count) {
    gw_key(out, "markdown"); gw_map(out, 2);
    gw_key(out, "title");
    uint8_t *title = gw_str_open(out);
    gw_add_value(out, n->title);
    gw_str_close(out, title, TITLE_BYTES);
    gw_key(out, "text");
    uint8_t *head = gw_str_open(out);
    gw_add(out, "#### ["); gw_add_value(out, n->severity); gw_add(out, "] "); gw_add_lines(out, n->title, " ");
    add_mentions(out, mobiles, count);
    gw_add(out, "\n\n> "); gw_add_value(out, n->at);
    if (n->device.len) { gw_add(out, " "); gw_add_value(out, n->device); }
    if (n->link.len) { gw_add(out, "\n\n[link]("); gw_add_value(out, n->link); gw_add(out, ")"); }
    if (n->text.len) { gw_add(out, "\n\n"); gw_add_lines(out, n->text, "\n\n"); }
    gw_str_close(out, head, TEXT_BYTES);
}

/* sign = base64(HMAC-SHA256(key = secret, data = timestamp "\n" secret)), beside the timestamp in milliseconds. */
static void write_signature(gw_out *out, uint64_t now_ms) {
    gw_key(out, "query"); gw_map(out, 2);
    gw_key(out, "timestamp");
    uint8_t *head = gw_str_open(out);
    gw_add_uint(out, now_ms);
    gw_str_close(out, head, 20);
    gw_key(out, "sign"); gw_hmac_open(out, "base64");
    gw_key(out, "key"); gw_array(out, 1);
    gw_secret(out, "key");
    gw_key(out, "data"); gw_array(out, 2);
    head = gw_str_open(out);
    gw_add_uint(out, now_ms); gw_add(out, "\n");
    gw_str_close(out, head, 21);
    gw_secret(out, "key");
}

static int32_t notify(gw_out *out, const gw_args *args) {
    gw_notification n;
    gw_in mobiles;
    uint32_t count;
    bool plain;
    GW_TRY(gw_notification_read(&n, args));
    GW_TRY(gw_format_setting(&n, "markdown", "text", &plain));
    GW_TRY(gw_people_setting(&n, "at_mobiles", &mobiles, &count));
    bool sign = gw_has_secret(&n, "key");
    gw_value all = gw_arg_value(&n.settings, "at_all");
    gw_request_open(out, sign ? 2 : 1);
    if (sign) write_signature(out, n.now_ms);
    gw_key(out, "json"); gw_map(out, 3);
    gw_key(out, "msgtype"); gw_cstr(out, plain ? "text" : "markdown");
    if (plain) write_plain(out, &n, mobiles, count);
    else write_markdown(out, &n, mobiles, count);
    gw_key(out, "at"); gw_map(out, 2);
    gw_key(out, "atMobiles"); gw_array(out, count);
    for (uint32_t i = 0; i < count; i++) {
        gw_value one = gw_next(&mobiles);
        gw_str(out, one.text, one.len);
    }
    gw_key(out, "isAtAll"); gw_bool(out, all.type == GW_T_BOOL && all.uint);
    return GW_WRITTEN;
}

static const int64_t AGAIN[] = {-1, 90030, 130101, 410100}; /* busy; three ways to say: too many messages */
static const gw_reply_shape REPLY = {
    .code = "errcode", .words = "errmsg", .again = AGAIN, .again_count = 4, .wait_s = 60,
};

GW_NOTIFIER(notify, &REPLY)
