# glslang's and SPIRV-Tools' libraries, for `peridot-bench kernels --variant`; GLSLANG_LIBRARIES is empty where
# they are not all here. Which libraries there are differs between glslang's versions; they are C++.
include(CheckCSourceCompiles)
find_path(GLSLANG_INCLUDE glslang/Include/glslang_c_interface.h)
find_path(SPIRV_TOOLS_INCLUDE spirv-tools/libspirv.h)
set(GLSLANG_LIBRARIES)
foreach(name glslang glslang-default-resource-limits SPIRV MachineIndependent GenericCodeGen OGLCompiler OSDependent
             SPIRV-Tools-opt SPIRV-Tools)
  find_library(GLSLANG_${name} ${name})
  if(GLSLANG_${name})
    list(APPEND GLSLANG_LIBRARIES ${GLSLANG_${name}})
  endif()
endforeach()
if(GLSLANG_LIBRARIES)
  list(JOIN GLSLANG_LIBRARIES "," libraries)
  set(GLSLANG_LIBRARIES "$<LINK_GROUP:RESCAN,${libraries}>" stdc++ m Threads::Threads)
endif()
if(GLSLANG_INCLUDE AND SPIRV_TOOLS_INCLUDE)
  if(NOT GLSLANG_LINKS) # what was missing may have been installed since
    unset(GLSLANG_LINKS CACHE)
  endif()
  set(CMAKE_REQUIRED_INCLUDES ${GLSLANG_INCLUDE} ${SPIRV_TOOLS_INCLUDE})
  set(CMAKE_REQUIRED_LIBRARIES ${GLSLANG_LIBRARIES})
  check_c_source_compiles("
    #include <stdbool.h>
    #include <stddef.h>
    #include <glslang/Include/glslang_c_interface.h>
    #include <glslang/Public/resource_limits_c.h>
    #include <spirv-tools/libspirv.h>
    int main(void) {
        glslang_program_t *program = glslang_initialize_process() ? glslang_program_create() : NULL;
        glslang_program_SPIRV_generate(program, GLSLANG_STAGE_COMPUTE);
        return glslang_default_resource() && spvContextCreate(SPV_ENV_VULKAN_1_3);
    }" GLSLANG_LINKS)
  unset(CMAKE_REQUIRED_INCLUDES)
  unset(CMAKE_REQUIRED_LIBRARIES)
endif()
if(NOT GLSLANG_LINKS)
  message(STATUS "peridot-bench kernels --variant will take SPIR-V alone: for GLSL install glslang-dev and g++")
  set(GLSLANG_LIBRARIES)
endif()
