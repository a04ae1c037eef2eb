/* The sum of one number of each invocation of a workgroup; SUBGROUP: which is one subgroup. */
#ifdef SUBGROUP
float add_all(float value) {
    return subgroupAdd(value);
}
#else
shared float parts[gl_WorkGroupSize.x];

float add_all(float value) {
    parts[gl_LocalInvocationID.x] = value;
    barrier();
    float sum = 0;
    for (uint i = 0; i < gl_WorkGroupSize.x; i++)
        sum += parts[i];
    return sum;
}
#endif
