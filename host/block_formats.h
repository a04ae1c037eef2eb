/* What the reader and the writer of blocks (blocks.h) share. */
#ifndef HOST_BLOCK_FORMATS_H
#define HOST_BLOCK_FORMATS_H

enum { SUPER_BLOCK = 256 }; /* elements to a block of a K format */

/* NF4's codes: quantiles of a normal distribution, scaled to [-1, 1], with a zero (Dettmers et al.
 * 2023) */
extern const float nf4_codes[16];

#endif
