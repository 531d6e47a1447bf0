/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages to a robot of a WeCom (enterprise WeChat) group.
 * Source: WeCom developer centre, "Group robot configuration" (path 91770): message types, sizes, 20 messages a minute.
 */
#include "gw1_notify.h"

enum {
    MARKDOWN_BYTES = 4096, /* the service's own bounds */
    TEXT_BYTES = 2048
};

static const char *color(gw_value severity) { return gw_is(severity, "info") ? "info" : "warning"; }

static void write_markdown(gw_out *out, const gw_notification *n, gw_in people, uint32_t count) {
    gw_key(out, "markdown"); gw_map(out, 1);
    gw_key(out, "content");
    uint8_t *head = gw_str_open(out);
    gw_add(out, "**<font color=\""); gw_add(out, color(n->severity)); gw_add(out, "\">[");
    gw_add_value(out, n->severity); gw_add(out, "]</font> "); gw_add_lines(out, n->title, " "); gw_add(out, "**");
    for (uint32_t i = 0; i < count; i++) {
        gw_add(out, i ? " <@" : "\n<@");
        gw_add_value(out, gw_next(&people));
        gw_add(out, ">");
    }
    gw_add(out, "\n> "); gw_add_value(out, n->at);
    if (n->device.len) { gw_add(out, " "); gw_add_value(out, n->device); }
    if (n->link.len) { gw_add(out, "\n[link]("); gw_add_value(out, n->link); gw_add(out, ")"); }
    if (n->text.len) { gw_add(out, "\n"); gw_add_value(out, n->text); } /* last: it is what may be cut */
    gw_str_close(out, head, MARKDOWN_BYTES);
}

static void write_people(gw_out *out, const char *key, gw_in people, uint32_t count) {
    gw_cstr(out, key); gw_array(out, count);
    for (uint32_t i = 0; i < count; i++) {
        gw_value one = gw_next(&people);
        gw_str(out, one.text, one.len);
    }
}

static void write_plain(gw_out *out, const gw_notification *n, gw_in people, uint32_t count, gw_in mobiles,
                        uint32_t mobile_count) {
    gw_key(out, "text"); gw_map(out, 3);
    write_people(out, "mentioned_list", people, count);
    write_people(out, "mentioned_mobile_list", mobiles, mobile_count);
    gw_key(out, "content");
    uint8_t *head = gw_str_open(out);
    gw_add(out, "["); gw_add_value(out, n->severity); gw_add(out, "] "); gw_add_value(out, n->title);
    gw_add(out, "\n"); gw_add_value(out, n->at);
    if (n->device.len) { gw_add(out, " "); gw_add_value(out, n->device); }
    if (n->link.len) { gw_add(out, "\n"); gw_add_value(out, n->link); }
    if (n->text.len) { gw_add(out, "\n"); gw_add_value(out, n->text); }
    gw_str_close(out, head, TEXT_BYTES);
}

static int32_t notify(gw_out *out, const gw_args *args) {
    gw_notification n;
    gw_in people, mobiles;
    uint32_t count, mobile_count;
    bool plain;
    GW_TRY(gw_notification_read(&n, args));
    GW_TRY(gw_format_setting(&n, "markdown", "text", &plain));
    GW_TRY(gw_people_setting(&n, "mentioned", &people, &count));
    GW_TRY(gw_people_setting(&n, "mentioned_mobiles", &mobiles, &mobile_count));
    if (mobile_count && !plain) return gw_bad_arg("args.mentioned_mobiles", "works with format = \"text\" only");
    gw_request_open(out, 1);
    gw_key(out, "json"); gw_map(out, 2);
    gw_key(out, "msgtype"); gw_cstr(out, plain ? "text" : "markdown");
    if (plain) write_plain(out, &n, people, count, mobiles, mobile_count);
    else write_markdown(out, &n, people, count);
    return GW_WRITTEN;
}

static const int64_t AGAIN[] = {-1, 45009, 45033}; /* busy; too many calls; too many at once */
static const gw_reply_shape REPLY = {
    .code = "errcode", .words = "errmsg", .again = AGAIN, .again_count = 3, .wait_s = 60,
};

GW_NOTIFIER(notify, &REPLY)
