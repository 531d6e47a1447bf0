/* SPDX-License-Identifier: Apache-2.0
 *
 * Terminal parameters: which type each id has, from the wire to values and back.
 *
 * A value is a number or text where the standard gives the id that type, and {"hex": "..."} for everything else.
 */
#include "jt808.h"

typedef enum { AS_HEX, BYTE_ = 1, WORD = 2, DWORD = 4, STRING = 8 } parameter_type;

typedef struct {
    uint16_t first, last;
    uint8_t type;
} id_range;

/* JT/T 808-2013 table 12 with the additions of JT/T 808-2019 table 12, ascending. */
static const id_range ids[] = {
    {0x0001, 0x0007, DWORD},  {0x0010, 0x0017, STRING}, {0x0018, 0x0019, DWORD}, {0x001a, 0x001a, STRING},
    {0x001b, 0x001c, DWORD},  {0x001d, 0x001d, STRING}, {0x0020, 0x0022, DWORD}, {0x0023, 0x0026, STRING},
    {0x0027, 0x0029, DWORD},  {0x002c, 0x0030, DWORD},  {0x0031, 0x0031, WORD},  {0x0040, 0x0044, STRING},
    {0x0045, 0x0047, DWORD},  {0x0048, 0x0049, STRING}, {0x0050, 0x005a, DWORD}, {0x005b, 0x005e, WORD},
    {0x0064, 0x0065, DWORD},  {0x0070, 0x0074, DWORD},  {0x0080, 0x0080, DWORD}, {0x0081, 0x0082, WORD},
    {0x0083, 0x0083, STRING}, {0x0084, 0x0084, BYTE_},  {0x0090, 0x0092, BYTE_}, {0x0093, 0x0093, DWORD},
    {0x0094, 0x0094, BYTE_},  {0x0095, 0x0095, DWORD},  {0x0100, 0x0100, DWORD}, {0x0101, 0x0101, WORD},
    {0x0102, 0x0102, DWORD},  {0x0103, 0x0103, WORD},
};

static parameter_type type_of(uint32_t id) {
    for (size_t i = 0; i < sizeof ids / sizeof *ids && ids[i].first <= id; i++)
        if (id <= ids[i].last) return (parameter_type)ids[i].type;
    return AS_HEX;
}

/* ---- From the wire ---------------------------------------------------------------------------------------------- */

/* `0x0001`; ids over 16 bits have eight digits. */
static void write_id(gw_out *out, uint32_t id) {
    char name[] = "0x00000000";
    uint32_t digits = id > 0xffff ? 8 : 4;
    for (uint32_t i = 0; i < digits; i++) name[2 + i] = "0123456789abcdef"[id >> 4 * (digits - 1 - i) & 15];
    gw_str(out, name, 2 + digits);
}

static void write_value(gw_out *out, uint32_t id, const uint8_t *at, uint32_t len) {
    parameter_type type = type_of(id);
    uint32_t text = len;
    while (text && at[text - 1] == 0) text--;
    if (type == STRING && is_text(at, text)) gw_str(out, (const char *)at, text);
    else if (type == DWORD && len == 4) gw_uint(out, gw_be32(at));
    else if (type == WORD && len == 2) gw_uint(out, gw_be16(at));
    else if (type == BYTE_ && len == 1) gw_uint(out, *at);
    else {
        gw_map(out, 1);
        gw_key(out, "hex"); gw_hex(out, at, len);
    }
}

/* A map of id to value from a list of (id, length, value); a value that is cut off ends it, as does `most`. */
void write_parameters(gw_out *out, const uint8_t *at, uint32_t left) {
    uint8_t *head = gw_map_open(out);
    uint32_t count = 0;
    while (left >= 5 && at[4] <= left - 5) {
        write_id(out, gw_be32(at));
        write_value(out, gw_be32(at), at + 5, at[4]);
        left -= 5u + at[4];
        at += 5u + at[4];
        count++;
    }
    gw_close(out, head, count);
}

/* ---- To the wire ------------------------------------------------------------------------------------------------ */

static char complaint[192];

/* "parameter <key> <what>", with the key as far as it is short and printable. */
static int32_t complain(gw_value key, const char *what) {
    gw_out text = {.start = (uint8_t *)complaint, .at = (uint8_t *)complaint, .end = (uint8_t *)complaint + sizeof complaint};
    gw_raw(&text, "parameter ", 10);
    if (key.type == GW_T_STR && key.len <= 16 && is_text((const uint8_t *)key.text, key.len)) {
        gw_raw(&text, key.text, key.len);
        gw_byte(&text, ' ');
    }
    gw_raw(&text, what, strlen(what));
    return gw_error_n(GW_BAD_CONFIG, complaint, gw_written(&text));
}

static int32_t digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if ((c | 32) >= 'a' && (c | 32) <= 'f') return (c | 32) - 'a' + 10;
    return -1;
}

/* "0x0001" with one to eight digits, or a number. */
static bool read_id(uint32_t *id, gw_value v) {
    if (v.type == GW_T_UINT && v.uint <= 0xffffffffu) {
        *id = (uint32_t)v.uint;
        return true;
    }
    if (v.type != GW_T_STR || v.len < 3 || v.len > 10 || v.text[0] != '0' || (v.text[1] | 32) != 'x') return false;
    *id = 0;
    for (uint32_t i = 2; i < v.len; i++) {
        if (digit(v.text[i]) < 0) return false;
        *id = *id << 4 | (uint32_t)digit(v.text[i]);
    }
    return true;
}

/* A whole number of at most `bytes` bytes; a float counts when it is whole (scripts have no other numbers). */
static bool read_number(uint32_t *number, gw_value v, uint32_t bytes) {
    double most = bytes == 4 ? 4294967295.0 : bytes == 2 ? 65535.0 : 255.0;
    bool is_number = v.type == GW_T_UINT || v.type == GW_T_F64;
    if (!is_number || !(v.f64 >= 0 && v.f64 <= most)) return false;
    *number = (uint32_t)v.f64;
    return (double)*number == v.f64;
}

static bool put_hex(gw_out *body, gw_value hex) {
    if (hex.type != GW_T_STR || hex.len % 2 || hex.len / 2 > TEXT_MOST) return false;
    gw_byte(body, (uint8_t)(hex.len / 2));
    for (uint32_t i = 0; i < hex.len; i += 2) {
        int32_t high = digit(hex.text[i]), low = digit(hex.text[i + 1]);
        if (high < 0 || low < 0) return false;
        gw_byte(body, (uint8_t)(high << 4 | low));
    }
    return true;
}

static int32_t put_text(gw_out *body, gw_value key, gw_value v) {
    if (v.type != GW_T_STR || v.len > TEXT_MOST) return complain(key, "takes a text of at most 255 bytes");
    if (!is_text((const uint8_t *)v.text, v.len))
        return complain(key, "takes printable ASCII; give other text as {\"hex\": \"<GBK bytes>\"}");
    gw_byte(body, (uint8_t)v.len);
    gw_raw(body, v.text, v.len);
    return GW_WRITTEN;
}

/* One (id, length, value); `value` stands before the value. */
static int32_t put_parameter(gw_out *body, gw_value key, uint32_t id, gw_in value) {
    gw_in at = value;
    gw_value v = gw_next(&at);
    parameter_type type = type_of(id);
    uint32_t number;
    gw_put32(body, id);
    if (v.type == GW_T_MAP)
        return put_hex(body, gw_get(value, "hex")) ? GW_WRITTEN : complain(key, "has no bytes in {\"hex\": \"...\"}");
    if (type == AS_HEX) return complain(key, "is not in the standard; give its bytes as {\"hex\": \"...\"}");
    if (type == STRING) return put_text(body, key, v);
    if (!read_number(&number, v, (uint32_t)type))
        return complain(key, type == DWORD ? "takes a whole number from 0 to 4294967295"
                             : type == WORD ? "takes a whole number from 0 to 65535"
                                            : "takes a whole number from 0 to 255");
    gw_byte(body, (uint8_t)type);
    for (uint32_t i = 0; i < (uint32_t)type; i++) gw_byte(body, (uint8_t)(number >> 8 * ((uint32_t)type - 1 - i)));
    return GW_WRITTEN;
}

/* The body of 0x8103: count, then each parameter. */
int32_t read_parameters(gw_out *body, gw_in parameters) {
    gw_value map = gw_next(&parameters), none = {.type = GW_T_END};
    if (map.type != GW_T_MAP || map.len < 1 || map.len > 255)
        return complain(none, "list: give 1 to 255 of them as {\"0x0001\": 60}");
    gw_byte(body, (uint8_t)map.len);
    for (uint32_t i = 0; i < map.len; i++) {
        gw_value key = gw_next(&parameters);
        uint32_t id;
        if (!read_id(&id, key)) return complain(key, "is no id; write it as \"0x0001\"");
        int32_t status = put_parameter(body, key, id, parameters);
        if (status != GW_WRITTEN) return status;
        if (!gw_skip(&parameters)) return complain(key, "is cut off");
    }
    return body->full ? complain(none, "list is too long for one message of 1023 bytes") : GW_WRITTEN;
}

/* The body of 0x8106: count, then the ids. */
int32_t read_parameter_ids(gw_out *body, gw_in ids_in) {
    gw_value list = gw_next(&ids_in), none = {.type = GW_T_END};
    if (list.type != GW_T_ARRAY || list.len < 1 || list.len > 255)
        return complain(none, "ids: give 1 to 255 of them as [\"0x0001\"]");
    gw_byte(body, (uint8_t)list.len);
    for (uint32_t i = 0; i < list.len; i++) {
        gw_value v = gw_next(&ids_in);
        uint32_t id;
        if (!read_id(&id, v)) return complain(v, "is no id; write it as \"0x0001\"");
        gw_put32(body, id);
    }
    return body->full ? complain(none, "ids are too many for one message of 1023 bytes") : GW_WRITTEN;
}
