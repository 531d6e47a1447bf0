/* SPDX-License-Identifier: Apache-2.0
 *
 * gw1_bcd.h - numbers and times in packed decimal digits, and times as text, for codecs of meters.
 *
 * Owns digits, the calendar and RFC 3339. Knows no frame. "Low first" means that the byte with the last two digits of
 * the number is sent first, as Chinese meters do.
 */
#ifndef GW1_BCD_H
#define GW1_BCD_H

#include "gw1.h"

/* ---- Digits ------------------------------------------------------------------------------------------------------ */

/* Read up to 9 bytes, low first; false where a half byte is no digit. */
GW_FN bool gw_bcd(const uint8_t *bytes, uint32_t n, uint64_t *value) {
    *value = 0;
    while (n--) {
        uint8_t high = bytes[n] >> 4, low = bytes[n] & 15;
        if (high > 9 || low > 9) return false;
        *value = *value * 100 + high * 10u + low;
    }
    return true;
}

/* Write n bytes, low first; digits that do not fit are cut off. */
GW_FN void gw_put_bcd(gw_out *out, uint64_t value, uint32_t n) {
    for (; n; n--, value /= 100) gw_byte(out, (uint8_t)(value / 10 % 10 << 4 | value % 10));
}

/* The two digits of a byte, -1 where a half is no digit. */
GW_FN int32_t gw_two_digits(uint8_t byte) {
    return byte >> 4 > 9 || (byte & 15) > 9 ? -1 : (byte >> 4) * 10 + (byte & 15);
}

/* The sum of bytes modulo 256, which such meters seal a frame with. */
GW_FN uint8_t gw_sum(const uint8_t *bytes, uint32_t n) {
    uint8_t sum = 0;
    while (n--) sum = (uint8_t)(sum + *bytes++);
    return sum;
}

/* Whether all bytes are FF, which meters send for "no value". */
GW_FN bool gw_all_ff(const uint8_t *bytes, uint32_t n) {
    while (n--) if (bytes[n] != 0xff) return false;
    return true;
}

/* n bytes as text of 2n hex digits, the last byte first: how people read an address that is sent low first. */
GW_FN void gw_hex_low_first(gw_out *out, const uint8_t *bytes, uint32_t n) {
    uint8_t turned[16];
    if (n > sizeof turned) n = sizeof turned;
    for (uint32_t i = 0; i < n; i++) turned[i] = bytes[n - 1 - i];
    gw_hex(out, turned, n);
}

/* A whole number with a decimal point `decimals` (0 to 9) places from the right: an integer, or the nearest float. */
GW_FN void gw_decimal(gw_out *out, int64_t value, uint32_t decimals) {
    static const double powers[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9};
    if (decimals == 0) gw_int(out, value);
    else gw_f64(out, (double)value / powers[decimals > 9 ? 9 : decimals]);
}

/* ---- The calendar ------------------------------------------------------------------------------------------------ */

typedef struct {
    int32_t year, month, day, hour, minute, second;
} gw_moment;

GW_FN bool gw_is_moment(gw_moment m) {
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (m.year < 1 || m.year > 9999 || m.month < 1 || m.month > 12 || m.day < 1) return false;
    if (m.hour < 0 || m.hour > 23 || m.minute < 0 || m.minute > 59 || m.second < 0 || m.second > 59) return false;
    bool leap = m.year % 4 == 0 && (m.year % 100 != 0 || m.year % 400 == 0);
    return m.day <= days[m.month - 1] + (m.month == 2 && leap);
}

/* Days since 1970-01-01 of a date of the Gregorian calendar, counted in years that begin with March. */
GW_FN int64_t gw_days(gw_moment m) {
    int64_t year = m.year - (m.month < 3), month = (m.month + 9) % 12;
    return 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + m.day - 1 - 719468;
}

/* Epoch milliseconds of a moment on a clock that is `offset_min` minutes ahead of UTC. */
GW_FN int64_t gw_epoch_ms(gw_moment m, int32_t offset_min) {
    return ((gw_days(m) * 24 + m.hour) * 60 + m.minute - offset_min) * 60000 + m.second * 1000;
}

/* The moment of epoch milliseconds (years 1 to 9999) on such a clock. */
GW_FN gw_moment gw_moment_of(int64_t ms, int32_t offset_min) {
    int64_t seconds = ms / 1000 - (ms % 1000 < 0) + offset_min * 60;
    int64_t days = seconds / 86400 - (seconds % 86400 < 0), rest = seconds - days * 86400;
    gw_moment m = {.hour = (int32_t)(rest / 3600), .minute = (int32_t)(rest / 60 % 60), .second = (int32_t)(rest % 60)};
    /* 400 years have 146,097 days; the guess of the year is never late by more than one. */
    m.year = (int32_t)((days + 719468) * 400 / 146097);
    m.month = 3;
    m.day = 1;
    while (gw_days(m) > days) m.year--;
    while (gw_days((gw_moment){.year = m.year + 1, .month = 3, .day = 1}) <= days) m.year++;
    int64_t in_year = days - gw_days(m), month = (5 * in_year + 2) / 153;
    m.day = (int32_t)(in_year - (153 * month + 2) / 5 + 1);
    m.month = (int32_t)(month < 10 ? month + 3 : month - 9);
    m.year += m.month < 3;
    return m;
}

GW_FN void gw_put_digits(char *to, int32_t value, uint32_t n) {
    while (n--) {
        to[n] = (char)('0' + value % 10);
        value /= 10;
    }
}

/* "2026-03-01T00:00:00Z" */
GW_FN void gw_utc_text(gw_out *out, int64_t ms) {
    char text[] = "0000-00-00T00:00:00Z";
    gw_moment m = gw_moment_of(ms, 0);
    gw_put_digits(text, m.year, 4);
    gw_put_digits(text + 5, m.month, 2);
    gw_put_digits(text + 8, m.day, 2);
    gw_put_digits(text + 11, m.hour, 2);
    gw_put_digits(text + 14, m.minute, 2);
    gw_put_digits(text + 17, m.second, 2);
    gw_str(out, text, sizeof text - 1);
}

GW_FN int32_t gw_take_digits(const char *text, uint32_t n) {
    int32_t value = 0;
    while (n--) {
        if (*text < '0' || *text > '9') return -1;
        value = value * 10 + (*text++ - '0');
    }
    return value;
}

/* Read an RFC 3339 date-time; a fraction of a second is passed over. */
GW_FN bool gw_read_moment(gw_value value, int64_t *ms) {
    const char *t = value.text;
    uint32_t n = value.len, at = 19;
    if (value.type != GW_T_STR || n < 20 || t[4] != '-' || t[7] != '-' || t[13] != ':' || t[16] != ':') return false;
    if (t[10] != 'T' && t[10] != 't' && t[10] != ' ') return false;
    gw_moment m = {gw_take_digits(t, 4), gw_take_digits(t + 5, 2), gw_take_digits(t + 8, 2),
                   gw_take_digits(t + 11, 2), gw_take_digits(t + 14, 2), gw_take_digits(t + 17, 2)};
    if (!gw_is_moment(m)) return false;
    if (t[at] == '.') {
        at++;
        while (at < n && t[at] >= '0' && t[at] <= '9') at++;
        if (t[at - 1] == '.' || at == n) return false;
    }
    int32_t offset = 0;
    if (t[at] == 'Z' || t[at] == 'z') {
        if (n != at + 1) return false;
    } else {
        if ((t[at] != '+' && t[at] != '-') || n != at + 6 || t[at + 3] != ':') return false;
        int32_t hours = gw_take_digits(t + at + 1, 2), minutes = gw_take_digits(t + at + 4, 2);
        if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59) return false;
        offset = (t[at] == '-' ? -1 : 1) * (hours * 60 + minutes);
    }
    *ms = gw_epoch_ms(m, offset);
    return true;
}

#endif
