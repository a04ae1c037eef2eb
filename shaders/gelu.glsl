/* GELU in its tanh form, x/2 (1 + tanh(z)), z = sqrt(2/pi) (x + 0.044715 x^3), as x / (1 + exp(-2z)): the
 * same, without cancellation where x is negative and without the builtin tanh, which is NaN for large z on
 * some devices. z is clamped so that exp stays finite. */
float gelu(float x) {
    float z = clamp(0.7978845608028654 * (x + 0.044715 * x * x * x), -20.0, 20.0);
    return x / (1.0 + exp(-2.0 * z));
}
