/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers and times as devices write them.
 */
#include "gb28181.h"

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool read_whole(const char *text, uint32_t len, int64_t *to) {
    bool negative = len && *text == '-';
    uint32_t i = negative || (len && *text == '+');
    int64_t v = 0;
    if (i == len || len - i > 18) return false;
    for (; i < len; i++) {
        if (!is_digit(text[i])) return false;
        v = v * 10 + (text[i] - '0');
    }
    *to = negative ? -v : v;
    return true;
}

static double times_power_of_ten(double v, int32_t exponent) {
    /* Powers that a double holds exactly: with at most 15 digits there is one rounding, so the result is the nearest. */
    static const double exact[23] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                     1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    while (exponent > 0) {
        int32_t step = exponent > 22 ? 22 : exponent;
        v *= exact[step];
        exponent -= step;
    }
    while (exponent < 0) {
        int32_t step = exponent < -22 ? 22 : -exponent;
        v /= exact[step];
        exponent += step;
    }
    return v;
}

/* Digits with an optional point among them; gives how many there are. Those past the 19th only move the point. */
static uint32_t read_digits(const char *text, uint32_t len, uint32_t *at, uint64_t *mantissa, int32_t *exponent) {
    uint32_t digits = 0;
    bool point = false;
    for (; *at < len && (is_digit(text[*at]) || (text[*at] == '.' && !point)); ++*at) {
        if (text[*at] == '.') {
            point = true;
            continue;
        }
        digits++;
        if (*mantissa < 1000000000000000000u) {
            *mantissa = *mantissa * 10 + (uint64_t)(text[*at] - '0');
            *exponent -= point;
        } else {
            *exponent += !point;
        }
    }
    return digits;
}

bool read_decimal(const char *text, uint32_t len, double *to) {
    bool negative = len && *text == '-';
    uint32_t at = negative || (len && *text == '+');
    uint64_t mantissa = 0;
    int32_t exponent = 0;
    int64_t power = 0;
    if (len > 64 || !read_digits(text, len, &at, &mantissa, &exponent)) return false;
    if (at < len && (text[at] | 0x20) == 'e') {
        if (!read_whole(text + at + 1, len - at - 1, &power) || power < -400 || power > 400) return false;
        at = len;
    }
    if (at < len) return false;
    double v = times_power_of_ten((double)mantissa, exponent + (int32_t)power);
    *to = negative ? -v : v;
    return gw_is_finite(v);
}

/* ---- Times ------------------------------------------------------------------------------------------------------- */

typedef struct { const char *at, *end; char *to; } scan;

/* A number of 1 to `width` digits, written with all of them. */
static bool take_number(scan *s, uint32_t width, int32_t least, int32_t most, int32_t *v) {
    uint32_t n = 0;
    for (*v = 0; n < width && s->at < s->end && is_digit(*s->at); n++) *v = *v * 10 + (*s->at++ - '0');
    if (!n || *v < least || *v > most) return false;
    int32_t rest = *v;
    for (uint32_t i = width; i--; rest /= 10) s->to[i] = (char)('0' + rest % 10);
    s->to += width;
    return true;
}
static bool take(scan *s, char c, char instead_of) {
    if (s->at >= s->end || (*s->at != c && *s->at != instead_of)) return false;
    s->at++;
    *s->to++ = c;
    return true;
}

static int32_t days_of_month(int32_t year, int32_t month) {
    if (month == 2) return year % 4 || (year % 100 == 0 && year % 400) ? 28 : 29;
    return 30 + ((month + (month > 7)) & 1);
}

static bool take_date(scan *s) {
    int32_t year, month, day;
    return take_number(s, 4, 1, 9999, &year) && take(s, '-', '/') && take_number(s, 2, 1, 12, &month) &&
           take(s, '-', '/') && take_number(s, 2, 1, days_of_month(year, month), &day);
}

static bool take_time(scan *s) {
    int32_t v;
    if (!(take_number(s, 2, 0, 23, &v) && take(s, ':', ':') && take_number(s, 2, 0, 59, &v) && take(s, ':', ':') &&
          take_number(s, 2, 0, 59, &v)))
        return false;
    if (s->at >= s->end || *s->at != '.') return true;
    const char *point = s->at++;
    while (s->at < s->end && is_digit(*s->at)) s->at++;
    if (s->at - point < 2 || s->at - point > 10) return false;
    memcpy(s->to, point, (size_t)(s->at - point));
    s->to += s->at - point;
    return true;
}

static bool take_offset(scan *s) {
    int32_t v;
    if (s->at == s->end || take(s, 'Z', 'z')) return s->at == s->end;
    return (take(s, '+', '+') || take(s, '-', '-')) && take_number(s, 2, 0, 23, &v) && take(s, ':', ':') &&
           take_number(s, 2, 0, 59, &v) && s->at == s->end;
}

/* Years have four digits; other parts may lack a zero, dates may have slashes, and the T may be a space. */
bool read_time(const char *text, uint32_t len, char *to, uint32_t *to_len) {
    scan s = {.at = text, .end = text + len, .to = to};
    if (len < 12 || (text[4] != '-' && text[4] != '/') || !take_date(&s)) return false;
    if (!take(&s, 'T', ' ') || !take_time(&s) || !take_offset(&s)) return false;
    *to_len = (uint32_t)(s.to - to);
    return true;
}
