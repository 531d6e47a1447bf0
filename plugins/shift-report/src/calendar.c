/* SPDX-License-Identifier: Apache-2.0
 *
 * The Gregorian calendar, before and after its beginning (ISO 8601).
 */
#include "report.h"

int64_t day_of(int64_t local_ms) { return local_ms / DAY_MS - (local_ms % DAY_MS < 0); }

/* "HH:MM" from 00:00 to 24:00. */
bool read_time_of_day(gw_value text, int32_t *minutes) {
    if (text.type != GW_T_STR || text.len != 5 || text.text[2] != ':') return false;
    int32_t digit[4];
    for (uint32_t i = 0; i < 4; i++) {
        digit[i] = text.text[i < 2 ? i : i + 1] - '0';
        if (digit[i] < 0 || digit[i] > 9) return false;
    }
    *minutes = (digit[0] * 10 + digit[1]) * 60 + digit[2] * 10 + digit[3];
    return digit[2] < 6 && *minutes <= 1440;
}

static char *put_digits(char *to, int64_t v, int32_t digits) {
    for (int32_t i = digits; i--; v /= 10) to[i] = (char)('0' + v % 10);
    return to + digits;
}

/* Years begin in March here, so that the leap day is the last of its year. */
void format_date(char to[DATE_CHARS], int64_t day) {
    enum { DAYS_400_YEARS = 146097, MARCH_0000 = 719468 };
    int64_t days = day + MARCH_0000, era = days / DAYS_400_YEARS - (days % DAYS_400_YEARS < 0);
    int64_t of_era = days - era * DAYS_400_YEARS;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / (DAYS_400_YEARS - 1)) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    int64_t march_month = (5 * of_year + 2) / 153;
    int64_t month = march_month < 10 ? march_month + 3 : march_month - 9;
    to = put_digits(to, era * 400 + year + (month <= 2), 4);
    *to++ = '-';
    to = put_digits(to, month, 2);
    *to++ = '-';
    put_digits(to, of_year - (153 * march_month + 2) / 5 + 1, 2);
}

/* RFC 3339 with the offset; milliseconds are cut off. */
void format_time(char to[TIME_CHARS], int64_t at, int32_t offset_min) {
    int64_t local = at + (int64_t)offset_min * MINUTE_MS, day = day_of(local), second = (local - day * DAY_MS) / 1000;
    int32_t offset = offset_min < 0 ? -offset_min : offset_min;
    format_date(to, day);
    to += DATE_CHARS;
    *to++ = 'T';
    to = put_digits(to, second / 3600, 2);
    *to++ = ':';
    to = put_digits(to, second / 60 % 60, 2);
    *to++ = ':';
    to = put_digits(to, second % 60, 2);
    *to++ = offset_min < 0 ? '-' : '+';
    to = put_digits(to, offset / 60, 2);
    *to++ = ':';
    put_digits(to, offset % 60, 2);
}
