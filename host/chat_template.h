/* Gemma's chat template, as token ids: turn markers are ids that no typed text can forge. */
#ifndef HOST_CHAT_TEMPLATE_H
#define HOST_CHAT_TEMPLATE_H

#include "tokenizer.h"

struct chat_message {
    const char *role;    /* "user", "model" or "assistant", "system" */
    const char *content; /* UTF-8, not owned; may hold anything that a person types */
    size_t length;
};

/* Appends a whole conversation, with <bos> and ending in the model's header:
 *     <bos><start_of_turn>user\n…<end_of_turn>\n<start_of_turn>model\n
 * Contents are stripped of the white space around them, Unicode's too, as the published template's
 * trim does. System messages come first; their texts stand before the first user's, joined with
 * blank lines, and empty ones leave no trace. What stands between two markers is tokenized as one
 * text, as the reference tokenizes the whole string. Errors (the list is as it was): ARGUMENT
 * (roles do not alternate, unknown role, no user message at the end), UNSUPPORTED (the tokenizer
 * has no turn markers), HOST_MEMORY. */
peridot_result chat_template_render(const struct tokenizer *tokenizer,
                                    const struct chat_message *messages, size_t count,
                                    struct token_list *list, peridot_error *error);

/* Appends what follows an answer that ended with <end_of_turn>: the newline, a user's turn, the
 * model's header. Together with the ids before it this is what chat_template_render makes of the
 * whole conversation, if the answer's ids are those of its text. They may differ, since a model can
 * spell a text with other tokens than the tokenizer would, or begin it with white space: a chat
 * that keeps its KV cache keeps the ids as they were generated. Errors: UNSUPPORTED, HOST_MEMORY.
 */
peridot_result chat_template_next_turn(const struct tokenizer *tokenizer, const char *content,
                                       size_t length, struct token_list *list,
                                       peridot_error *error);

#endif
