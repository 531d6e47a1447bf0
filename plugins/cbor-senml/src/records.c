/* SPDX-License-Identifier: Apache-2.0
 *
 * SenML records, with the base fields of the records before them applied. Knows no devices and no output.
 *
 * Source: RFC 8428, 4 (fields), 4.5 (how they go together), 6 and table 4 (CBOR labels).
 */
#include "senml.h"

enum { BVER = -1, BN = -2, BT = -3, BU = -4, BV = -5, BS = -6 };
enum { N = 0, U = 1, V = 2, VS = 3, VB = 4, S = 5, T = 6, UT = 7, VD = 8 };
enum { LEAST_LABEL = BS, MOST_LABEL = VD };

#define TRY(call)                                                                                                     \
    do {                                                                                                              \
        int32_t try_status = (call);                                                                                  \
        if (try_status != GW_WRITTEN) return try_status;                                                              \
    } while (0)

/* Open a pack: an array of records, behind a tag that says "CBOR" or not. */
int32_t open_pack(pack *p, const uint8_t *bytes, uint32_t len) {
    cbor_head head;
    *p = (pack){.in = {.at = bytes, .end = bytes + len}};
    TRY(cbor_next(&p->in, &head));
    if (head.major == TAG && head.value == 55799) TRY(cbor_next(&p->in, &head));
    if (head.major != ARRAY) return gw_error(WRONG_TYPE, "a pack must be an array of records");
    p->is_indefinite = head.is_indefinite;
    p->left = head.value;
    return GW_WRITTEN;
}

static int32_t read_text(const cbor_head *head, text *to) {
    if (head->major != TEXT) return gw_error(WRONG_TYPE, "names, units and string values must be text");
    if (!gw_is_utf8(head->bytes, (size_t)head->value)) return gw_error(NOT_CBOR, "a text is not UTF-8");
    *to = (text){.bytes = head->bytes, .len = (uint32_t)head->value};
    return GW_WRITTEN;
}

static int32_t read_double(cbor_in *in, const cbor_head *head, double *to) {
    number n;
    TRY(cbor_number(in, head, &n));
    *to = n.value;
    return GW_WRITTEN;
}

static int32_t read_version(pack *p, const cbor_head *head) {
    if (head->major != UNSIGNED) return gw_error(WRONG_TYPE, "the version must be an unsigned integer");
    if (head->value > VERSION) return gw_error(WRONG_VERSION, "a version of SenML after 10 is not understood");
    bool differs = p->count && head->value != (p->base.has_version ? p->base.version : VERSION);
    if (differs) return gw_error(WRONG_VERSION, "all records of a pack must have one version");
    p->base.version = head->value;
    p->base.has_version = true;
    return GW_WRITTEN;
}

static int32_t read_base(pack *p, int label, const cbor_head *head) {
    base_fields *base = &p->base;
    switch (label) {
    case BVER: return read_version(p, head);
    case BN: return read_text(head, &base->name);
    case BU: base->has_unit = true; return read_text(head, &base->unit);
    case BT: base->has_time = true; return read_double(&p->in, head, &base->time);
    case BV: base->has_value = true; return cbor_number(&p->in, head, &base->value);
    default: base->has_sum = true; return read_double(&p->in, head, &base->sum);
    }
}

static int32_t take_kind(record *r, value_kind kind) {
    if (r->kind != NOTHING) return gw_error(NO_VALUE, "a record has more than one value");
    r->kind = kind;
    return GW_WRITTEN;
}

static int32_t read_value(pack *p, record *r, int label, const cbor_head *head) {
    switch (label) {
    case V:
        TRY(take_kind(r, NUMBER));
        return cbor_number(&p->in, head, &r->number);
    case VS:
        TRY(take_kind(r, STRING));
        return read_text(head, &r->text);
    case VB:
        TRY(take_kind(r, BOOLEAN));
        if (head->major != SIMPLE || (head->info != 20 && head->info != 21))
            return gw_error(WRONG_TYPE, "a boolean value must be true or false");
        r->boolean = head->info == 21;
        return GW_WRITTEN;
    default:
        TRY(take_kind(r, DATA));
        if (head->major != BYTES) return gw_error(WRONG_TYPE, "a data value must be a byte string");
        r->text = (text){.bytes = head->bytes, .len = (uint32_t)head->value};
        return GW_WRITTEN;
    }
}

static int32_t read_field(pack *p, record *r, text *name, int label, const cbor_head *head) {
    if (label < 0) return read_base(p, label, head);
    switch (label) {
    case N: return read_text(head, name);
    case U: r->has_unit = true; return read_text(head, &r->unit);
    case S: r->has_sum = true; return read_double(&p->in, head, &r->sum);
    case T: r->has_time = true; return read_double(&p->in, head, &r->time);
    case UT: r->has_update_time = true; return read_double(&p->in, head, &r->update_time);
    default: return read_value(p, r, label, head);
    }
}

/* A label that this codec knows; false for one to pass over. */
static int32_t read_label(const cbor_head *key, int *label, bool *is_known) {
    *is_known = false;
    if (key->major == UNSIGNED || key->major == NEGATIVE) {
        if (key->value > MOST_LABEL) return GW_WRITTEN;
        *label = key->major == UNSIGNED ? (int)key->value : -1 - (int)key->value;
        *is_known = *label >= LEAST_LABEL;
        return GW_WRITTEN;
    }
    if (key->major != TEXT) return gw_error(WRONG_TYPE, "a label must be an integer or text");
    if (key->value && key->bytes[key->value - 1] == '_')
        return gw_error(MUST_UNDERSTAND, "the pack has a field that must be understood (its label ends in _), and is not");
    return GW_WRITTEN;
}

static int32_t join_name(const base_fields *base, text name, record *r) {
    if (base->name.len + (uint64_t)name.len > NAME_MOST) return gw_error(WRONG_NAME, "a name is longer than 128 characters");
    /* Where there are no bytes, their place may be no pointer either. */
    if (base->name.len) memcpy(r->name, base->name.bytes, base->name.len);
    if (name.len) memcpy(r->name + base->name.len, name.bytes, name.len);
    r->base_name_len = base->name.len;
    r->name_len = base->name.len + name.len;
    return GW_WRITTEN;
}

static bool is_alphanumeric(uint8_t c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* Source: RFC 8428, 4.5.1. */
static int32_t check_name(const record *r) {
    if (!r->name_len || !is_alphanumeric(r->name[0]))
        return gw_error(WRONG_NAME, "a name must begin with a letter or digit; base name and name are joined");
    for (uint32_t i = 0; i < r->name_len; i++) {
        uint8_t c = r->name[i];
        if (!is_alphanumeric(c) && c != '-' && c != ':' && c != '.' && c != '/' && c != '_')
            return gw_error(WRONG_NAME, "a name may have letters, digits and - : . / _ only");
    }
    return GW_WRITTEN;
}

static int32_t add_base(const base_fields *base, record *r, bool has_name) {
    if (!r->has_unit && base->has_unit) {
        r->unit = base->unit;
        r->has_unit = true;
    }
    /* A value that is missing counts as zero where there is a base value and a name (4.5.4). */
    if (r->kind == NOTHING && !r->has_sum && has_name && base->has_value) {
        r->kind = NUMBER;
        r->number = base->value;
    } else if (r->kind == NUMBER && base->has_value) {
        r->number = (number){.value = r->number.value + base->value.value};
    }
    if (base->has_sum && (r->has_sum || r->kind != NOTHING)) {
        r->sum += base->sum;
        r->has_sum = true;
    }
    r->time += base->time;
    bool is_finite = r->time - r->time == 0 && r->sum - r->sum == 0 && r->number.value - r->number.value == 0;
    return is_finite ? GW_WRITTEN : gw_error(WRONG_TYPE, "a value and its base value make no finite number");
}

static int32_t read_fields(pack *p, record *r, text *name, bool *has_base) {
    cbor_head map, key, value;
    uint32_t seen = 0;
    TRY(cbor_next(&p->in, &map));
    if (map.major != MAP) return gw_error(WRONG_TYPE, "a record must be a map");
    for (uint64_t left = map.value; map.is_indefinite ? !cbor_take_break(&p->in) : left > 0; left--) {
        int label = 0;
        bool is_known;
        TRY(cbor_next(&p->in, &key));
        TRY(read_label(&key, &label, &is_known));
        TRY(cbor_next(&p->in, &value));
        if (!is_known) {
            TRY(cbor_skip_rest(&p->in, &value));
            continue;
        }
        uint32_t bit = 1u << (label - LEAST_LABEL);
        if (seen & bit) return gw_error(NOT_CBOR, "a record has a field twice");
        seen |= bit;
        *has_base |= label < 0;
        TRY(read_field(p, r, name, label, &value));
    }
    return GW_WRITTEN;
}

/* Read and resolve one record. */
static int32_t read_record(pack *p, record *r) {
    if (p->count == RECORDS_MOST) return gw_error(TOO_MUCH, "a pack has at most 2048 records");
    *r = (record){.kind = NOTHING};
    text name = {.len = 0};
    bool has_base = false;
    TRY(read_fields(p, r, &name, &has_base));
    p->count++;
    p->left--;
    TRY(join_name(&p->base, name, r));
    TRY(add_base(&p->base, r, name.len > 0));
    if (r->kind != NOTHING || r->has_sum) return check_name(r);
    return has_base ? GW_WRITTEN : gw_error(NO_VALUE, "a record has neither value, sum nor base fields");
}

/* Read on to the next record with a value or a sum: those of base fields alone are for the ones behind them. `is_last`
 * where there is none, and then nothing may be left of the input. */
int32_t next_record(pack *p, record *r, bool *is_last) {
    do {
        *is_last = p->is_indefinite ? cbor_take_break(&p->in) : p->left == 0;
        if (*is_last) {
            if (p->in.at != p->in.end) return gw_error(NOT_CBOR, "something stands behind the pack");
            return p->count ? GW_WRITTEN : gw_error(NO_VALUE, "a pack must have a record");
        }
        TRY(read_record(p, r));
    } while (r->kind == NOTHING && !r->has_sum);
    return GW_WRITTEN;
}
