/* A checkpoint's configuration and tokenizer as the metadata of a GGUF file, under the keys that
 * llama.cpp's converter writes for Gemma. */
#ifndef HOST_CONVERT_METADATA_H
#define HOST_CONVERT_METADATA_H

#include "checkpoint.h"
#include "gguf_output.h"

/* `most`: the type that most of the file's weights have; `quantised`: whether any has blocks.
 * `*has_tokenizer`: whether the checkpoint has one. Errors: those of checkpoint_create_tokenizer
 * and checkpoint_chat_template. */
peridot_result convert_metadata(const struct checkpoint *checkpoint, enum weight_type most,
                                bool quantised, struct gguf_output *output, bool *has_tokenizer,
                                peridot_error *error);

#endif
