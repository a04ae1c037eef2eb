/* What a session has computed, for the host and where it is on the device. */
#include "caller_struct.h"
#include "session.h"

#include <string.h>

static peridot_result check_hidden(const struct peridot_session *session, peridot_error *error) {
    if (!session->scratch.hidden_states)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "this session keeps no hidden states: name a hidden_layer when creating it");
    return PERIDOT_OK;
}

/* Rows without their padding. */
static peridot_result read_rows(struct peridot_session *session, uint32_t first, uint32_t count,
                                float *to, peridot_error *error) {
    uint32_t columns = session->model->config.d_model, stride = session->model->d_padded;
    const struct buffer *states = session->scratch.hidden_states;
    peridot_result result = PERIDOT_OK;
    if (columns == stride)
        return session_read(session, states, (uint64_t)first * stride * 4,
                            (uint64_t)count * stride * 4, to, error);
    for (uint32_t i = 0; i < count && !result; i++)
        result = session_read(session, states, (uint64_t)(first + i) * stride * 4,
                              (uint64_t)columns * 4, to + (size_t)i * columns, error);
    return result;
}

peridot_result peridot_session_hidden_wait(peridot_session *session, uint32_t first, uint32_t count,
                                           float *hidden, peridot_error *error) {
    if (!session || !hidden)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_session_hidden_wait needs a session and a place for the states");
    peridot_result result = session_check_present(session, error);
    if (!result)
        result = check_hidden(session, error);
    if (result)
        return result;
    if (count == 0 || first > session->computed || count > session->computed - first)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "there are hidden states of tokens 0 to %u, and not of %u from %u on",
                    session->computed, count, first);
    return read_rows(session, first, count, hidden, error);
}

static void place(const struct buffer *buffer, uint32_t rows, uint32_t columns, uint32_t stride,
                  peridot_result_buffer *out) {
    *out = (peridot_result_buffer){.buffer = buffer->handle,
                                   .address = buffer->address,
                                   .rows = rows,
                                   .columns = columns,
                                   .stride = stride};
}

peridot_result peridot_session_result(const peridot_session *session, peridot_result_kind kind,
                                      peridot_result_buffer *result, peridot_error *error) {
    if (!session || !result)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_session_result needs a session and a place for the buffer");
    const struct peridot_model *model = session->model;
    uint32_t vocabulary = model->config.vocabulary, context = session->context;
    peridot_result_buffer found;
    peridot_result checked = caller_struct_check(result, "peridot_result_buffer", error);
    if (!checked)
        checked = suspension_check(session, false, error);
    if (checked)
        return checked;
    switch (kind) {
    case PERIDOT_RESULT_LOGITS:
        place(session->scratch.logits, 1, vocabulary, vocabulary, &found);
        break;
    case PERIDOT_RESULT_TOKENS:
        place(session->tokens, 1, context + 1, context + 1, &found);
        break;
    case PERIDOT_RESULT_HIDDEN:
        checked = check_hidden(session, error);
        if (!checked)
            place(session->scratch.hidden_states, context, model->config.d_model, model->d_padded,
                  &found);
        break;
    default:
        checked = fail(error, PERIDOT_ERROR_ARGUMENT, "there is no result of kind %d", (int)kind);
    }
    if (!checked)
        caller_struct_write(result, &found, sizeof found);
    return checked;
}
