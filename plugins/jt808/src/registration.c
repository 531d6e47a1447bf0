/* SPDX-License-Identifier: Apache-2.0
 *
 * What a terminal says of itself: registration, authentication, attributes.
 */
#include "jt808.h"

/* Widths of the text fields of a registration, in the order of the body, for each edition of the standard. */
typedef struct {
    uint8_t manufacturer, model, terminal;
} layout;

static const layout layout_2011 = {5, 8, 7}, layout_2013 = {5, 20, 7}, layout_2019 = {11, 30, 30};

/* Province, city, the text fields, colour: what stands before the plate. */
static uint32_t fixed_bytes(const layout *l) { return 2u + 2u + l->manufacturer + l->model + l->terminal + 1u; }

static bool colour_fits(const message *m, const layout *l) {
    return m->body_len >= fixed_bytes(l) && m->body[fixed_bytes(l) - 1] <= 9;
}

/* The editions of 2011 and 2013 share a header; the colour byte, 0 to 9, tells the longer bodies apart. */
static const layout *registration_layout(const message *m) {
    if (m->is_2019 && m->body_len >= fixed_bytes(&layout_2019)) return &layout_2019;
    if (colour_fits(m, &layout_2013)) return &layout_2013;
    if (colour_fits(m, &layout_2011)) return &layout_2011;
    if (m->body_len >= fixed_bytes(&layout_2013)) return &layout_2013;
    return m->body_len >= fixed_bytes(&layout_2011) ? &layout_2011 : NULL;
}

static void write_registration(gw_out *out, const message *m, const layout *l) {
    const uint8_t *at = m->body + 4;
    gw_key(out, "register"); gw_map(out, 7);
    gw_key(out, "province"); gw_uint(out, gw_be16(m->body));
    gw_key(out, "city"); gw_uint(out, gw_be16(m->body + 2));
    write_text(out, "manufacturer", "manufacturer_hex", at, l->manufacturer);
    write_text(out, "model", "model_hex", at + l->manufacturer, l->model);
    write_text(out, "terminal_id", "terminal_id_hex", at + l->manufacturer + l->model, l->terminal);
    at += l->manufacturer + l->model + l->terminal;
    gw_key(out, "plate_color"); gw_uint(out, *at);
    write_text(out, "plate", "plate_gbk_hex", at + 1, m->body_len - fixed_bytes(l));
}

/* 0x0100. A body that fits no edition is still a registration: the header names the terminal. */
int32_t decode_register(gw_out *out, const message *m) {
    const layout *l = registration_layout(m);
    write_item(out, m, "register", 2);
    write_ack(out, m, "register_reply", RESULT_OK);
    gw_key(out, "value"); gw_map(out, header_value_pairs(m) + 1);
    write_header_value(out, m);
    if (l) {
        write_registration(out, m, l);
    } else {
        gw_key(out, "body"); gw_hex(out, m->body, m->body_len);
    }
    return GW_WRITTEN;
}

/* The code as the credential to compare: text, or hex digits where it is no text. */
static void write_code(gw_out *out, const uint8_t *code, uint32_t len) {
    if (is_text(code, len)) gw_str(out, (const char *)code, len);
    else gw_hex(out, code, len);
}

/* 0x0102. Until 2013 the body is the code; since 2019 the code stands behind its length, then IMEI and version. */
int32_t decode_authenticate(gw_out *out, const message *m) {
    enum { IMEI = 15 };
    const uint8_t *code = m->body;
    uint32_t len = m->body_len, behind = 0;
    if (m->is_2019 && len && code[0] < len) {
        len = *code++;
        behind = m->body_len - 1 - len;
    }
    const uint8_t *rest = code + len;
    while (len && code[len - 1] == 0) len--;
    bool has_imei = behind >= IMEI;
    write_item(out, m, "authenticate", 3);
    gw_key(out, "credential"); write_code(out, code, len);
    write_ack(out, m, "general_reply", RESULT_OK);
    gw_key(out, "value"); gw_map(out, header_value_pairs(m) + 1);
    write_header_value(out, m);
    gw_key(out, "authenticate"); gw_map(out, 1 + 2 * has_imei);
    gw_key(out, "code"); write_code(out, code, len);
    if (has_imei) {
        write_text(out, "imei", "imei_hex", rest, IMEI);
        write_text(out, "software_version", "software_version_hex", rest + IMEI, behind - IMEI);
    }
    return GW_WRITTEN;
}

/* One text behind its length; what is left of the body moves on. False where the body ends inside. */
static bool take_short_text(const uint8_t **at, uint32_t *left, const uint8_t **text, uint32_t *len) {
    if (!*left || **at >= *left) return false;
    *len = **at;
    *text = *at + 1;
    *left -= 1 + *len;
    *at += 1 + *len;
    return true;
}

/* 0x0107, the answer to a query of attributes. It names no command, so it is an event; 2011 has none. */
int32_t decode_attributes(gw_out *out, const message *m) {
    enum { ICCID = 10 };
    const layout *l = m->is_2019 ? &layout_2019 : &layout_2013;
    uint32_t fixed = 2u + l->manufacturer + l->model + l->terminal + ICCID, hardware_len, firmware_len;
    if (m->body_len < fixed) return decode_raw(out, m);
    const uint8_t *at = m->body + fixed, *hardware, *firmware;
    uint32_t left = m->body_len - fixed;
    if (!take_short_text(&at, &left, &hardware, &hardware_len)) return decode_raw(out, m);
    if (!take_short_text(&at, &left, &firmware, &firmware_len) || left < 2) return decode_raw(out, m);
    write_item(out, m, "event", 2);
    gw_key(out, "event"); gw_map(out, 2);
    gw_key(out, "name"); gw_lit(out, "attributes");
    gw_key(out, "data");
    uint8_t *from = gw_mark(out);
    gw_map(out, 9);
    gw_key(out, "terminal_type"); gw_uint(out, gw_be16(m->body));
    write_text(out, "manufacturer", "manufacturer_hex", m->body + 2, l->manufacturer);
    write_text(out, "model", "model_hex", m->body + 2 + l->manufacturer, l->model);
    write_text(out, "terminal_id", "terminal_id_hex", m->body + 2 + l->manufacturer + l->model, l->terminal);
    gw_key(out, "iccid"); gw_hex(out, m->body + fixed - ICCID, ICCID);
    write_text(out, "hardware_version", "hardware_version_hex", hardware, hardware_len);
    write_text(out, "firmware_version", "firmware_version_hex", firmware, firmware_len);
    gw_key(out, "gnss"); gw_uint(out, at[0]);
    gw_key(out, "communication"); gw_uint(out, at[1]);
    uint8_t *to = gw_mark(out);
    gw_key(out, "value"); gw_map(out, header_value_pairs(m) + 1);
    write_header_value(out, m);
    gw_key(out, "attributes"); gw_raw(out, from, (size_t)(to - from));
    return GW_WRITTEN;
}
