// What the race build does at every load and store.
#pragma once
#include "internal.h"

namespace cuda_on_cpu {

enum class Memory : std::uint8_t { shared, global, constant };
const char* name(Access);

// ---- race_detector.cpp --------------------------------------------------------------------------------
// Ends the launch where it is out of bounds.
Memory detect_races(Access, const unsigned char* p, std::size_t bytes, const void* pc);
void detector_launch(std::uint32_t blocks);
void detector_block(const Block&);
void detector_block_sync(const Block&);
void detector_named_arrive(const Block&, int number);
void detector_named_sync(const Block&, int number);
void detector_warp_sync(const Block&, std::uint32_t warp, std::uint32_t mask);
void detector_grid_sync();
void detector_fence();
void detector_copy_issued(const Copy&);
void detector_copy_done(const Copy&);
void detector_region(const void* p, std::size_t bytes);
void detector_region_gone(const void* p);
void detector_host_write(const void* to, std::size_t bytes);
void detector_reset();

// ---- memory_counts.cpp --------------------------------------------------------------------------------
void count_access(Access, Memory, const void* p, std::size_t bytes, const void* pc);
void counts_launch(std::uint32_t blocks);
void counts_launch_end();
void counts_block(const Block&);
void counts_block_sync(const Block&);
void counts_named_sync(const Block&, int number);
void counts_warp_sync(const Block&, std::uint32_t warp);
void counts_reset();

}  // namespace cuda_on_cpu
