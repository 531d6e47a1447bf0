/* SPDX-License-Identifier: Apache-2.0
 *
 * Names of devices. A unit identifier is unique on one line only: where meters of many lines come in over modems, the
 * packet by which a modem registers names the line. Knows no Modbus.
 */
#include "meter.h"

bool modems_register;

static char device_prefix[PREFIX_MOST + 1] = "meter-";
static char modem_prefix[PREFIX_MOST + 1];

typedef struct {
    uint64_t order; /* of its last registration; 0: free */
    uint32_t connection;
    uint32_t len;
    char name[MODEM_NAME_MOST];
} modem;

static modem modems[MODEMS_MOST];
static uint64_t registrations;

/* Letters, digits and what stands in ids; survives URLs and topics. */
static bool is_name(const char *text, uint32_t len) {
    for (uint32_t i = 0; i < len; i++) {
        char c = text[i];
        bool fits = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!fits && c != '.' && c != ':' && c != '-' && c != '_') return false;
    }
    return true;
}

static bool take_prefix(gw_value v, char to[PREFIX_MOST + 1], bool as_name) {
    if (v.type != GW_T_STR || v.len > PREFIX_MOST || (as_name && !is_name(v.text, v.len))) return false;
    memcpy(to, v.text, v.len);
    to[v.len] = 0;
    return true;
}

int32_t read_names(gw_in config) {
    gw_value device = gw_get(config, "device_prefix"), packet = gw_get(config, "modem_prefix");
    if (device.type != GW_T_END && !take_prefix(device, device_prefix, true))
        return gw_error(GW_BAD_CONFIG, "device_prefix must be at most 32 letters, digits, . : - _");
    uint32_t len = (uint32_t)strlen(device_prefix);
    if (len && device_prefix[len - 1] >= '0' && device_prefix[len - 1] <= '9')
        return gw_error(GW_BAD_CONFIG, "device_prefix must not end in a digit: the unit identifier follows it");
    modems_register = packet.type != GW_T_END;
    if (modems_register && !take_prefix(packet, modem_prefix, false))
        return gw_error(GW_BAD_CONFIG, "modem_prefix must be text of at most 32 bytes, or left out");
    return 0;
}

static uint32_t trimmed(const uint8_t *bytes, uint32_t len) {
    while (len && (bytes[len - 1] <= ' ')) len--;
    return len;
}

/* Whether a packet is a modem's registration: the prefix, then a name; line ends behind it do not count. */
bool is_registration(const uint8_t *bytes, uint32_t len) {
    uint32_t prefix = (uint32_t)strlen(modem_prefix);
    len = trimmed(bytes, len);
    if (!modems_register || len <= prefix || len - prefix > MODEM_NAME_MOST) return false;
    return memcmp(bytes, modem_prefix, prefix) == 0 && is_name((const char *)bytes + prefix, len - prefix);
}

static modem *find_modem(uint32_t connection) {
    for (uint32_t i = 0; i < MODEMS_MOST; i++)
        if (modems[i].order && modems[i].connection == connection) return &modems[i];
    return NULL;
}

static void note_modem(uint32_t connection, const char *name, uint32_t len) {
    modem *place = find_modem(connection);
    for (uint32_t i = 0; !place && i < MODEMS_MOST; i++)
        if (!modems[i].order) place = &modems[i];
    if (!place) {
        place = modems;
        for (uint32_t i = 1; i < MODEMS_MOST; i++)
            if (modems[i].order < place->order) place = &modems[i];
    }
    *place = (modem){.order = ++registrations, .connection = connection, .len = len};
    memcpy(place->name, name, len);
}

void take_registration(uint32_t connection, const uint8_t *bytes, uint32_t len) {
    uint32_t prefix = (uint32_t)strlen(modem_prefix);
    note_modem(connection, (const char *)bytes + prefix, trimmed(bytes, len) - prefix);
}

static void add_unit(device_id *to, uint8_t unit_id) {
    if (unit_id > 99) to->text[to->len++] = (char)('0' + unit_id / 100);
    if (unit_id > 9) to->text[to->len++] = (char)('0' + unit_id / 10 % 10);
    to->text[to->len++] = (char)('0' + unit_id % 10);
}

/* The id of a unit on a connection; false where its modem has not said who it is. */
bool name_device(device_id *to, uint32_t connection, uint8_t unit_id) {
    if (modems_register) {
        const modem *known = find_modem(connection);
        if (!known) return false;
        memcpy(to->text, known->name, known->len);
        to->len = known->len;
        to->text[to->len++] = '-';
    } else {
        to->len = (uint32_t)strlen(device_prefix);
        memcpy(to->text, device_prefix, to->len);
    }
    add_unit(to, unit_id);
    return true;
}

/* The unit identifier at the end of a device id. */
bool unit_of_device(gw_value device, uint8_t *unit_id) {
    uint32_t prefix = (uint32_t)strlen(device_prefix), at = device.len, unit = 0, place = 1;
    if (device.type != GW_T_STR || device.len > DEVICE_MOST) return false;
    while (at && device.len - at < 3 && device.text[at - 1] >= '0' && device.text[at - 1] <= '9') {
        unit += place * (uint32_t)(device.text[--at] - '0');
        place *= 10;
    }
    if (unit < 1 || unit > 247 || device.text[at] == '0') return false;
    *unit_id = (uint8_t)unit;
    if (modems_register) return at > 1 && device.text[at - 1] == '-';
    return at == prefix && memcmp(device.text, device_prefix, prefix) == 0;
}

/* The names are carried over a reload: modems register once a connection. */
int32_t save_modems(gw_out *out) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < MODEMS_MOST; i++) count += modems[i].order != 0;
    gw_array(out, count);
    for (uint32_t i = 0; i < MODEMS_MOST; i++) {
        if (!modems[i].order) continue;
        gw_array(out, 2);
        gw_uint(out, modems[i].connection);
        gw_str(out, modems[i].name, modems[i].len);
    }
    return GW_WRITTEN;
}

int32_t load_modems(gw_in state) {
    gw_value head = gw_next(&state);
    if (head.type != GW_T_ARRAY || head.len > MODEMS_MOST) return gw_error(GW_BAD_CONFIG, "the state is no list of modems");
    for (uint32_t i = 0; i < head.len; i++) {
        gw_value pair = gw_next(&state), connection = gw_next(&state), name = gw_next(&state);
        bool sound = pair.type == GW_T_ARRAY && pair.len == 2 && connection.type == GW_T_UINT &&
                     connection.uint <= 0xffffffffu && name.type == GW_T_STR && name.len <= MODEM_NAME_MOST;
        if (!sound) return gw_error(GW_BAD_CONFIG, "the state names a modem that is none");
        note_modem((uint32_t)connection.uint, name.text, name.len);
    }
    return 0;
}
