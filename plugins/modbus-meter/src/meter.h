/* SPDX-License-Identifier: Apache-2.0
 *
 * meter.h - what the source files of the Modbus meter codec share: the register map and one line about each part.
 *
 * A Modbus RTU reply does not say which registers it holds. The map lists the blocks that are polled, and a reply is
 * known by its unit identifier, function and number of bytes: no two blocks of a map may look alike.
 */
#ifndef METER_H
#define METER_H

#define GW_IN_BYTES (64u * 1024u)
#define GW_OUT_BYTES (1024u * 1024u)
#include "gw1.h"
#include "gw1_args.h"
#include "gw1_asked.h"

enum {
    BLOCKS_MOST = 32,
    POINTS_MOST = 512,     /* of all blocks together */
    NAME_MOST = 64,        /* characters of a property */
    BLOCK_NAME_MOST = 32,
    PREFIX_MOST = 32,      /* of a device id, and of a modem's registration */
    MODEM_NAME_MOST = 40,
    MODEMS_MOST = 1024,    /* connections of modems that said who they are */
    DEVICE_MOST = MODEM_NAME_MOST + 8,
    REGISTERS_MOST = 125,  /* of one reply. Source: Modbus Application Protocol V1.1b3, 6.3 */
    BITS_MOST = 2000,      /* 6.1 */
    WRITE_MOST = 123       /* registers of one request, 6.12 */
};

enum {
    READ_COILS = 1, READ_DISCRETE_INPUTS = 2, READ_HOLDING_REGISTERS = 3, READ_INPUT_REGISTERS = 4,
    WRITE_COIL = 5, WRITE_REGISTER = 6, WRITE_COILS = 15, WRITE_REGISTERS = 16
};

typedef enum { U16, S16, U32, S32, U64, F32, F64, BIT } point_type;

typedef struct {
    char name[NAME_MOST + 1];
    uint8_t type;
    uint8_t order;    /* of bytes: bit 0 swaps the two of each register, bit 1 reverses the registers */
    uint8_t bit;      /* of a register, for type BIT */
    bool is_scaled;   /* else an integer stays one */
    uint16_t offset;  /* registers (or bits) behind the block's address */
    double scale, divisor, add;
} point;

typedef struct {
    char name[BLOCK_NAME_MOST + 1];
    uint8_t unit_id;  /* 0: any */
    uint8_t function;
    uint16_t address, count;
    uint16_t first, points; /* its part of map_points */
} block;

/* map.c: the register map of the configuration */
extern block map_blocks[BLOCKS_MOST];
extern uint32_t map_block_count;
extern point map_points[POINTS_MOST];
int32_t read_map(gw_in config);
uint32_t reply_bytes(const block *b);
const block *find_block(uint8_t unit_id, uint8_t function, uint32_t bytes);
bool holds_bits(uint8_t function);

/* modems.c: whose meters a connection carries */
extern bool modems_register;
int32_t read_names(gw_in config);
bool is_registration(const uint8_t *bytes, uint32_t len);
void take_registration(uint32_t connection, const uint8_t *bytes, uint32_t len);
typedef struct { char text[DEVICE_MOST + PREFIX_MOST]; uint32_t len; } device_id;
bool name_device(device_id *to, uint32_t connection, uint8_t unit_id);
bool unit_of_device(gw_value device, uint8_t *unit_id);
int32_t save_modems(gw_out *out);
int32_t load_modems(gw_in state);

/* values.c: registers as properties */
void write_points(gw_out *out, const block *b, const uint8_t *data);

/* commands.c: what the platform sends */
uint16_t crc_of(const uint8_t *bytes, uint32_t len);
int32_t encode(gw_out *out, gw_in request, uint32_t aux);
gw_asked *find_question(const device_id *device, uint8_t function);
extern bool line_echoes;
bool take_echo(const device_id *device, uint8_t function, const uint8_t words[4]);

#endif
