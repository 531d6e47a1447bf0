/* SPDX-License-Identifier: Apache-2.0
 *
 * port.c - the platform under the JavaScript engine: its clock, its decimal digits, its last words.
 *
 * Knows no JavaScript.
 */
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include "gw1.h"
#include "port.h"

#undef snprintf
#undef strtod

/* ---- WASI that the libc would import: the clock is the host's, and there is nothing else ------------------------- */

#define WASI(name) __imported_wasi_snapshot_preview1_##name
enum { WASI_NOSYS = 52 };

int32_t WASI(clock_time_get)(int32_t clock, int64_t precision, int32_t to);
int32_t WASI(clock_time_get)(int32_t clock, int64_t precision, int32_t to) {
    int64_t ns = gw_now_ms() * 1000000;
    memcpy((void *)(uintptr_t)(uint32_t)to, &ns, sizeof ns);
    return 0;
}

int32_t WASI(poll_oneoff)(int32_t in, int32_t out, int32_t count, int32_t to);
int32_t WASI(poll_oneoff)(int32_t in, int32_t out, int32_t count, int32_t to) { return WASI_NOSYS; }

_Noreturn void port_assert_fail(const char *condition, const char *file, int line, const char *function) {
    __builtin_trap();
}

/* ---- Decimal digits of a double, exactly ------------------------------------------------------------------------- */

enum {
    GROUP = 1000000000,
    GROUP_DIGITS = 9,
    /* A double has at most 309 digits before the point (35 groups) and 1,074 after it (120 groups). */
    WHOLE_GROUPS = 35,
    PART_GROUPS = 120,
    GROUPS = WHOLE_GROUPS + PART_GROUPS,
    DIGITS = GROUPS * GROUP_DIGITS,
    POINT = WHOLE_GROUPS * GROUP_DIGITS, /* digits before the decimal point */
};

/* All digits of |d|: `digits[POINT - 1]` is the ones. Returns the place of the first one that is not 0, or DIGITS. */
static int exact_digits(double d, char *digits) {
    static uint32_t groups[GROUPS];
    uint64_t bits = gw_f64_bits(d), mantissa = bits & 0xfffffffffffffull;
    int power = (int)(bits >> 52 & 0x7ff);
    if (power) mantissa |= 1ull << 52;
    else power = 1;
    power -= 1075;
    memset(groups, 0, sizeof groups);
    int first = WHOLE_GROUPS - 2, last = WHOLE_GROUPS;
    groups[WHOLE_GROUPS - 1] = (uint32_t)(mantissa % GROUP);
    groups[WHOLE_GROUPS - 2] = (uint32_t)(mantissa / GROUP);
    while (power > 0) {
        int shift = power < 29 ? power : 29;
        power -= shift;
        uint64_t carry = 0;
        for (int i = WHOLE_GROUPS - 1; i >= first; i--) {
            carry += (uint64_t)groups[i] << shift;
            groups[i] = (uint32_t)(carry % GROUP);
            carry /= GROUP;
        }
        if (carry) groups[--first] = (uint32_t)carry;
    }
    while (power < 0) { /* 2^9 divides 10^9: nothing is lost */
        int shift = power > -9 ? -power : 9;
        power += shift;
        uint64_t rest = 0;
        for (int i = first; i < last; i++) {
            rest = rest * GROUP + groups[i];
            groups[i] = (uint32_t)(rest >> shift);
            rest &= (1u << shift) - 1;
        }
        if (rest) groups[last++] = (uint32_t)(rest * GROUP >> shift);
    }
    memset(digits, '0', DIGITS);
    for (int i = first; i < last; i++) {
        uint32_t group = groups[i];
        for (int k = GROUP_DIGITS - 1; k >= 0; k--, group /= 10)
            digits[i * GROUP_DIGITS + k] = (char)('0' + group % 10);
    }
    int place = first * GROUP_DIGITS;
    while (place < DIGITS && digits[place] == '0') place++;
    return place;
}

/* Cut the digits at `end`: to the nearest, of two equally near the larger. True where a carry made a digit before
 * `first`. Source: ECMAScript 2020, 20.1.3.2, 20.1.3.3 and 20.1.3.5. */
static bool round_digits(char *digits, int first, int end) {
    if (digits[end] < '5') return false;
    int at = end - 1;
    while (at >= 0 && digits[at] == '9') digits[at--] = '0';
    digits[at]++;
    return at < first;
}

static char *put_exponent(char *at, int exponent) {
    *at++ = 'e';
    *at++ = exponent < 0 ? '-' : '+';
    if (exponent < 0) exponent = -exponent;
    if (exponent >= 100) *at++ = (char)('0' + exponent / 100);
    *at++ = (char)('0' + exponent / 10 % 10);
    *at++ = (char)('0' + exponent % 10);
    return at;
}

/* As printf of "%+.<after>e" writes a finite number. Returns the length. */
static int put_scientific(char *to, double d, int after) {
    static char digits[DIGITS];
    bool negative = gw_f64_bits(d) >> 63;
    int first = exact_digits(d, digits);
    if (first == DIGITS) first = POINT - 1; /* zero */
    if (round_digits(digits, first, first + 1 + after)) first--;
    char *at = to;
    *at++ = negative ? '-' : '+';
    *at++ = digits[first];
    if (after) *at++ = '.';
    memcpy(at, digits + first + 1, (size_t)after);
    at = put_exponent(at + after, POINT - 1 - first);
    *at = 0;
    return (int)(at - to);
}

/* As printf of "%.<after>f" writes a finite number below 1e21. Returns the length. */
static int put_fixed(char *to, double d, int after) {
    static char digits[DIGITS];
    bool negative = gw_f64_bits(d) >> 63;
    int first = exact_digits(d, digits);
    if (first > POINT - 1) first = POINT - 1;
    if (round_digits(digits, first, POINT + after)) first--;
    char *at = to;
    if (negative) *at++ = '-';
    memcpy(at, digits + first, (size_t)(POINT - first));
    at += POINT - first;
    if (after) *at++ = '.';
    memcpy(at, digits + POINT, (size_t)after);
    at += after;
    *at = 0;
    return (int)(at - to);
}

/* Room of a number in the engine's own buffers, which it asserts to be enough. */
enum { MOST_NUMBER_BYTES = 128, MOST_AFTER_POINT = 101 };

int port_snprintf(char *to, size_t room, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int length;
    bool fixed = strcmp(format, "%.*f") == 0;
    if (room == MOST_NUMBER_BYTES && (fixed || strcmp(format, "%+.*e") == 0)) {
        int after = va_arg(args, int);
        double d = va_arg(args, double);
        if (after < 0 || after > MOST_AFTER_POINT) __builtin_trap();
        length = fixed ? put_fixed(to, d, after) : put_scientific(to, d, after);
    } else {
        length = vsnprintf(to, room, format, args);
    }
    va_end(args);
    return length;
}

/* ---- Text to a double -------------------------------------------------------------------------------------------- */

/* Plain decimals of at most 15 digits and a small power of ten are exact in one multiplication or division of doubles
 * (Clinger, "How to read floating point numbers accurately", 1990); the rest is the libc's. */
double port_strtod(const char *text, char **end) {
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const char *at = text;
    bool negative = *at == '-';
    if (*at == '-' || *at == '+') at++;
    uint64_t mantissa = 0;
    int digits = 0, power = 0, seen = 0;
    for (bool part = false; (*at >= '0' && *at <= '9') || (*at == '.' && !part); at++) {
        if (*at == '.') {
            part = true;
            continue;
        }
        seen++;
        mantissa = mantissa * 10 + (uint64_t)(*at - '0');
        if (mantissa && ++digits > 15) return strtod(text, end);
        power -= part;
    }
    if (!seen || *at == 'x' || *at == 'X' || *at == 'i' || *at == 'n') return strtod(text, end);
    if (*at == 'e' || *at == 'E') {
        const char *sign = at + 1;
        bool below = *sign == '-';
        if (*sign == '-' || *sign == '+') sign++;
        if (*sign >= '0' && *sign <= '9') {
            int exponent = 0;
            for (at = sign; *at >= '0' && *at <= '9'; at++)
                if (exponent < 1000) exponent = exponent * 10 + (*at - '0');
            power += below ? -exponent : exponent;
        }
    }
    if (power < -22 || power > 22) return strtod(text, end);
    double d = (double)mantissa;
    d = power < 0 ? d / powers[-power] : d * powers[power];
    if (end) *end = (char *)at;
    return negative ? -d : d;
}
