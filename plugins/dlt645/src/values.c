/* SPDX-License-Identifier: Apache-2.0
 *
 * The data of an answer as properties. What this codec does not know, or cannot read as the standard lays it out, is
 * kept as hex under `di_` and the identifier. Knows no frame.
 */
#include "dlt645.h"

int32_t clock_offset_min = 480; /* China's time zone, the only one that such meters run on by default */

enum { BLOCK_MOST = 64, HEX_NAME = 11 };

static void write_name(gw_out *out, const char *name, const char *suffix) {
    size_t len = strlen(name), more = strlen(suffix);
    char text[NAME_BYTES + 8];
    memcpy(text, name, len);
    memcpy(text + len, suffix, more);
    gw_str(out, text, len + more);
}

/* "di_" and eight digits. */
static void hex_name(char to[HEX_NAME + 1], uint32_t di) {
    to[0] = 'd'; to[1] = 'i'; to[2] = '_';
    for (int i = 0; i < 8; i++) to[3 + i] = "0123456789abcdef"[di >> (28 - 4 * i) & 15];
    to[HEX_NAME] = 0;
}

static uint32_t write_hex(gw_out *out, uint32_t di, const uint8_t *data, uint32_t len) {
    char name[HEX_NAME + 1];
    hex_name(name, di);
    gw_cstr(out, name);
    gw_hex(out, data, len);
    return 1;
}

/* The digits of a number whose highest bit may be its sign; false where they are none. */
static bool read_number(const uint8_t *data, uint32_t bytes, bool is_signed, int64_t *value) {
    uint8_t copy[8];
    memcpy(copy, data, bytes);
    bool negative = is_signed && (copy[bytes - 1] & 0x80) != 0;
    if (negative) copy[bytes - 1] &= 0x7f;
    uint64_t digits;
    if (!gw_bcd(copy, bytes, &digits)) return false;
    *value = negative ? -(int64_t)digits : (int64_t)digits;
    return true;
}

static uint32_t write_number(gw_out *out, const item *it, const uint8_t *data) {
    int64_t value;
    if (!read_number(data, it->bytes, it->is_signed, &value)) return 0;
    gw_cstr(out, it->name);
    gw_decimal(out, value, it->decimals);
    return 1;
}

/* Three bytes of demand, then minute, hour, day, month and year; all zeros where none was reached yet. */
static uint32_t write_demand(gw_out *out, const item *it, const uint8_t *data) {
    int64_t value;
    if (!read_number(data, 3, it->is_signed, &value)) return 0;
    gw_moment at = {.minute = gw_two_digits(data[3]), .hour = gw_two_digits(data[4]), .day = gw_two_digits(data[5]),
                    .month = gw_two_digits(data[6]), .year = 2000 + gw_two_digits(data[7])};
    gw_cstr(out, it->name);
    gw_decimal(out, value, it->decimals);
    write_name(out, it->name, "_time");
    if (gw_two_digits(data[7]) >= 0 && gw_is_moment(at)) gw_utc_text(out, gw_epoch_ms(at, clock_offset_min));
    else gw_nil(out);
    return 2;
}

static uint32_t write_digits(gw_out *out, const item *it, const uint8_t *data) {
    gw_cstr(out, it->name);
    gw_hex_low_first(out, data, it->bytes);
    return 1;
}

static uint32_t write_text(gw_out *out, const item *it, const uint8_t *data) {
    char text[32];
    uint32_t from = 0, len = 0;
    /* Sent last byte first, and filled up with zeros or spaces. */
    while (from < it->bytes && (data[from] == 0 || data[from] == ' ')) from++;
    for (uint32_t i = it->bytes; i > from; i--) {
        uint8_t byte = data[i - 1];
        if (len == 0 && (byte == 0 || byte == ' ')) continue;
        if (byte < 0x20 || byte > 0x7e) return 0;
        text[len++] = (char)byte;
    }
    gw_cstr(out, it->name);
    gw_str(out, text, len);
    return 1;
}

static uint32_t write_date(gw_out *out, const item *it, const uint8_t *data) {
    /* Day of the week, day, month, year. */
    gw_moment at = {.day = gw_two_digits(data[1]), .month = gw_two_digits(data[2]), .year = 2000 + gw_two_digits(data[3])};
    if (gw_two_digits(data[3]) < 0 || !gw_is_moment(at)) return 0;
    char text[] = "0000-00-00";
    gw_put_digits(text, at.year, 4);
    gw_put_digits(text + 5, at.month, 2);
    gw_put_digits(text + 8, at.day, 2);
    gw_cstr(out, it->name);
    gw_str(out, text, sizeof text - 1);
    return 1;
}

static uint32_t write_time(gw_out *out, const item *it, const uint8_t *data) {
    gw_moment at = {2000, 1, 1, gw_two_digits(data[2]), gw_two_digits(data[1]), gw_two_digits(data[0])};
    if (!gw_is_moment(at)) return 0;
    char text[] = "00:00:00";
    gw_put_digits(text, at.hour, 2);
    gw_put_digits(text + 3, at.minute, 2);
    gw_put_digits(text + 6, at.second, 2);
    gw_cstr(out, it->name);
    gw_str(out, text, sizeof text - 1);
    return 1;
}

static uint32_t write_clock(gw_out *out, const item *it, const uint8_t *data) {
    /* Second, minute, hour, day of the week, day, month, year. */
    gw_moment at = {2000 + gw_two_digits(data[6]), gw_two_digits(data[5]), gw_two_digits(data[4]),
                    gw_two_digits(data[2]), gw_two_digits(data[1]), gw_two_digits(data[0])};
    if (gw_two_digits(data[6]) < 0 || !gw_is_moment(at)) return 0;
    gw_cstr(out, it->name);
    gw_utc_text(out, gw_epoch_ms(at, clock_offset_min));
    return 1;
}

typedef struct {
    uint32_t di;
    const char *name;
    uint8_t bit;
} flag;

/* Bits of status words that people watch. Source: annex C. */
static const flag flags[] = {
    {0x04000501, "clock_battery_low", 2},     {0x04000501, "reading_battery_low", 3},
    {0x04000501, "active_power_reversed", 4}, {0x04000501, "reactive_power_reversed", 5},
    {0x04000503, "relay_open", 4},
};

/* A status word and its flags. All ones are no status (every word has reserved bits, which are 0) but "no value": were
 * they one, they would raise every alarm at once. */
static uint32_t write_status(gw_out *out, const item *it, uint32_t di, const uint8_t *data) {
    bool is_none = gw_all_ff(data, it->bytes);
    uint16_t word = gw_le16(data);
    uint32_t written = 1;
    gw_cstr(out, it->name);
    if (is_none) gw_nil(out);
    else gw_uint(out, word);
    for (uint32_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        if (flags[i].di != di) continue;
        gw_cstr(out, flags[i].name);
        if (is_none) gw_nil(out);
        else gw_bool(out, word >> flags[i].bit & 1);
        written++;
    }
    return written;
}

static uint32_t write_form(gw_out *out, const item *it, uint32_t di, const uint8_t *data) {
    switch (it->form) {
    case AS_NUMBER: return write_number(out, it, data);
    case AS_DEMAND: return write_demand(out, it, data);
    case AS_DIGITS: return write_digits(out, it, data);
    case AS_TEXT: return write_text(out, it, data);
    case AS_DATE: return write_date(out, it, data);
    case AS_TIME: return write_time(out, it, data);
    case AS_CLOCK: return write_clock(out, it, data);
    default: return write_status(out, it, di, data);
    }
}

/* The data of one identifier: exactly its bytes. */
static uint32_t write_item(gw_out *out, const item *it, uint32_t di, const uint8_t *data) {
    if (it->form != AS_STATUS && gw_all_ff(data, it->bytes)) {
        gw_cstr(out, it->name);
        gw_nil(out);
        return 1;
    }
    uint32_t written = write_form(out, it, di, data);
    return written ? written : write_hex(out, di, data, it->bytes);
}

static uint32_t write_block(gw_out *out, uint32_t first, uint32_t step, const uint8_t *data, uint32_t len) {
    uint32_t written = 0;
    item it;
    for (uint32_t di = first; len; di += step) {
        find_item(&it, di);
        written += write_item(out, &it, di, data);
        data += it.bytes;
        len -= it.bytes;
    }
    return written;
}

/* Whether the data is a whole number of a block's items, and all of them are known. */
static bool fits_block(uint32_t first, uint32_t step, uint32_t len) {
    item it;
    for (uint32_t count = 0, di = first; len; count++, di += step) {
        if (count == BLOCK_MOST || !find_item(&it, di) || it.bytes > len) return false;
        len -= it.bytes;
    }
    return true;
}

/* Write the pairs of an answer's data; returns how many there are. */
uint32_t write_values(gw_out *out, uint32_t di, const uint8_t *data, uint32_t len) {
    uint32_t first, step;
    item it;
    if (len == 0) return 0;
    if (is_block(di, &first, &step) && fits_block(first, step, len)) return write_block(out, first, step, data, len);
    if (find_item(&it, di) && it.bytes == len) return write_item(out, &it, di, data);
    return write_hex(out, di, data, len);
}

/* A further frame of a long answer: where its items begin is not said, so that it stays hex. */
uint32_t write_rest(gw_out *out, uint32_t di, uint8_t sequence, const uint8_t *data, uint32_t len) {
    char name[HEX_NAME + 1], suffix[] = ".000";
    if (len == 0) return 0;
    hex_name(name, di);
    gw_put_digits(suffix + 1, sequence, 3);
    write_name(out, name, suffix);
    gw_hex(out, data, len);
    return 1;
}
