/* SPDX-License-Identifier: Apache-2.0
 *
 * The data of an answer as properties. What this codec does not know, or cannot read as the standard lays it out, is
 * kept as hex under `di_` and the identifier. Knows no frame.
 *
 * Source: CJ/T 188-2004, tables of data for water and gas meters, for heat meters, and of the status ST.
 */
#include "cjt188.h"

enum {
    CLOCK = 7,
    STATUS = 2,
    WATER_READING = 5 + 5 + CLOCK + STATUS,
    HEAT_READING = 5 * 5 + 3 + 3 + 3 + CLOCK + STATUS
};

static bool is_water_or_gas(uint8_t type) { return (type >= 0x10 && type <= 0x19) || (type >= 0x30 && type <= 0x39); }
static bool is_heat(uint8_t type) { return type >= 0x20 && type <= 0x29; }

/* Second, minute, hour, day, month, year of four digits; null where it is no date, as in a meter without a clock. */
static void write_clock(gw_out *out, const uint8_t bytes[CLOCK]) {
    gw_moment at = {.second = gw_two_digits(bytes[0]), .minute = gw_two_digits(bytes[1]), .hour = gw_two_digits(bytes[2]),
                    .day = gw_two_digits(bytes[3]), .month = gw_two_digits(bytes[4])};
    int32_t low = gw_two_digits(bytes[5]), high = gw_two_digits(bytes[6]);
    at.year = low < 0 || high < 0 ? 0 : high * 100 + low;
    gw_key(out, "meter_clock");
    if (at.year >= YEAR_LEAST && gw_is_moment(at)) gw_utc_text(out, gw_epoch_ms(at, clock_offset_min));
    else gw_nil(out);
}

/* The status word and what the standard says of it; the second byte is the maker's. All ones are "no value": were they
 * a status, they would raise every alarm at once. */
uint32_t write_status(gw_out *out, const uint8_t status[STATUS]) {
    static const char *const valves[4] = {"open", "closed", "unknown", "abnormal"};
    if (gw_all_ff(status, STATUS)) {
        gw_key(out, "status_word"); gw_nil(out);
        gw_key(out, "valve"); gw_nil(out);
        gw_key(out, "battery_low"); gw_nil(out);
        return 3;
    }
    gw_key(out, "status_word"); gw_uint(out, gw_le16(status));
    gw_key(out, "valve"); gw_cstr(out, valves[status[0] & 3]);
    gw_key(out, "battery_low"); gw_bool(out, status[0] >> 2 & 1);
    return 3;
}

/* Three bytes of digits, null where they are none. */
static void write_digits(gw_out *out, const uint8_t bytes[3], uint32_t decimals) {
    uint64_t digits;
    if (gw_bcd(bytes, 3, &digits)) gw_decimal(out, (int64_t)digits, decimals);
    else gw_nil(out);
}

static uint32_t write_water(gw_out *out, const uint8_t *data, unit_place place) {
    gw_key(out, "cumulative_flow"); write_quantity(out, data, VOLUME, place);
    gw_key(out, "settlement_flow"); write_quantity(out, data + 5, VOLUME, place);
    write_clock(out, data + 10);
    return 3 + write_status(out, data + 10 + CLOCK);
}

static const struct {
    const char *name, *cold_name;
    quantity kind;
} heat_fields[5] = {
    {"settlement_heat", "settlement_cooling", ENERGY},
    {"cumulative_heat", "cumulative_cooling", ENERGY},
    {"heat_power", "cooling_power", POWER},
    {"flow_rate", "flow_rate", FLOW_RATE},
    {"cumulative_flow", "cumulative_flow", VOLUME},
};

static uint32_t write_heat(gw_out *out, uint8_t type, const uint8_t *data, unit_place place) {
    for (uint32_t i = 0; i < 5; i++, data += 5) {
        gw_cstr(out, type == 0x21 ? heat_fields[i].cold_name : heat_fields[i].name);
        write_quantity(out, data, heat_fields[i].kind, place);
    }
    gw_key(out, "supply_temperature"); write_digits(out, data, 2);
    gw_key(out, "return_temperature"); write_digits(out, data + 3, 2);
    gw_key(out, "working_hours"); write_digits(out, data + 6, 0);
    write_clock(out, data + 9);
    return 9 + write_status(out, data + 9 + CLOCK);
}

static bool is_water_reading(const uint8_t *data, uint32_t len, unit_place place) {
    return len == WATER_READING && is_quantity(data, VOLUME, place) && is_quantity(data + 5, VOLUME, place);
}

/* Heat meters of some makers send the unit first: all five fields must agree. */
static bool is_heat_reading(const uint8_t *data, uint32_t len, unit_place place) {
    if (len != HEAT_READING) return false;
    for (uint32_t i = 0; i < 5; i++)
        if (!is_quantity(data + 5 * i, heat_fields[i].kind, place)) return false;
    return true;
}

static uint32_t write_month(gw_out *out, uint16_t di, const uint8_t *data, unit_place place) {
    char name[] = "cumulative_flow_month_00";
    uint32_t month = (uint32_t)(di - MONTH_FIRST) + 1, len = sizeof name - 1;
    if (month < 10) len--;
    gw_put_digits(name + 22, (int32_t)month, month < 10 ? 1 : 2);
    gw_str(out, name, len);
    write_quantity(out, data, VOLUME, place);
    return 1;
}

static uint32_t write_hex(gw_out *out, uint16_t di, const uint8_t *data, uint32_t len) {
    char name[] = "di_0000";
    for (int i = 0; i < 4; i++) name[3 + i] = "0123456789abcdef"[di >> (12 - 4 * i) & 15];
    gw_str(out, name, sizeof name - 1);
    gw_hex(out, data, len);
    return 1;
}

/* Write the pairs of an answer's data; returns how many there are. */
uint32_t write_values(gw_out *out, uint8_t type, uint16_t di, const uint8_t *data, uint32_t len) {
    if (len == 0) return 0;
    for (unit_place place = UNIT_LAST; place <= UNIT_FIRST; place++) {
        if (di == READING && is_water_or_gas(type) && is_water_reading(data, len, place))
            return write_water(out, data, place);
        if (di == READING && is_heat(type) && is_heat_reading(data, len, place))
            return write_heat(out, type, data, place);
        if (di >= MONTH_FIRST && di <= MONTH_LAST && len == 5 && is_quantity(data, VOLUME, place))
            return write_month(out, di, data, place);
    }
    if (di == VALVE_DI && len == STATUS) return write_status(out, data);
    return write_hex(out, di, data, len);
}
