#include "session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    peridot_error error;
    (void)saved_session_check(data, size, "fuzz", &error);
    return 0;
}
