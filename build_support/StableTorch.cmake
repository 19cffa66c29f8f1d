# The LibTorch stable ABI: headers of the installed torch, and an empty stand-in for libtorch.so to link
# against. The real one is in the process before our libraries are (`import torch`) and matches by soname,
# so one build serves every torch from 2.11 on, with or without CUDA.
execute_process(
  COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/find_torch.py"
  OUTPUT_VARIABLE torch_found ERROR_VARIABLE torch_missing RESULT_VARIABLE torch_status
  OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT torch_status EQUAL 0)
  message(FATAL_ERROR "${torch_missing}")
endif()
list(GET torch_found 0 EQUICONV_TORCH_DIR)
list(GET torch_found 1 EQUICONV_TORCH_VERSION)
message(STATUS "equiconv: headers of torch ${EQUICONV_TORCH_VERSION} in ${EQUICONV_TORCH_DIR}")

set(EQUICONV_TORCH_TARGET 0x020b000000000000)  # 2.11, the oldest torch that can load the libraries

file(GENERATE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/stand_in/empty.cpp" CONTENT "")
add_library(torch_stand_in SHARED "${CMAKE_CURRENT_BINARY_DIR}/stand_in/empty.cpp")
set_target_properties(torch_stand_in PROPERTIES
  OUTPUT_NAME torch LIBRARY_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/stand_in")

add_library(stable_torch INTERFACE)
target_include_directories(stable_torch SYSTEM INTERFACE "${EQUICONV_TORCH_DIR}/include")
target_compile_definitions(stable_torch INTERFACE TORCH_TARGET_VERSION=${EQUICONV_TORCH_TARGET})
target_link_libraries(stable_torch INTERFACE
  -Wl,--no-as-needed $<TARGET_FILE:torch_stand_in> -Wl,--as-needed)  # nothing in it is used: keep it NEEDED
add_dependencies(stable_torch torch_stand_in)
