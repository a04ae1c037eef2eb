/* The header of a GGUF file on disk. */
#ifndef HOST_GGUF_FILE_H
#define HOST_GGUF_FILE_H

#include "gguf.h"
#include "platform.h"

/* Reads as much of the file as its header takes into new memory, `*bytes`, and parses it: what
 * gguf_parse says of `name` and of the result holds here. The memory is the caller's to free, after
 * the result; also after an error. Errors: as gguf_parse, and FILE. */
peridot_result gguf_file_read(const struct open_file *file, const char *name, struct gguf *result,
                              uint8_t **bytes, peridot_error *error);

#endif
