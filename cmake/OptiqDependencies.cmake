# Every third-party package, in one place. System packages come first; MLX is
# the wheel that scripts/setup put into its venv; Highway is the tree inside
# the numpy source package where the system has none that is new enough.
include(FetchContent)

set(OPTIQ_MLX_VERSION 0.32.4)
set(OPTIQ_NUMPY_SDIST_SHA256 f3a3570c4a2a16746ac2c31a7c7c7b0c186b95ce902e33db6f28094ed7387dda)

if(NOT OPTIQ_CACHE_DIR)
  if(DEFINED ENV{OPTIQ_CACHE_DIR})
    set(OPTIQ_CACHE_DIR $ENV{OPTIQ_CACHE_DIR})
  elseif(DEFINED ENV{XDG_CACHE_HOME})
    set(OPTIQ_CACHE_DIR $ENV{XDG_CACHE_HOME}/optiq)
  else()
    set(OPTIQ_CACHE_DIR $ENV{HOME}/.cache/optiq)
  endif()
endif()

# --- MLX -------------------------------------------------------------------
file(GLOB optiq_mlx_wheel ${OPTIQ_CACHE_DIR}/venv/lib/python3*/site-packages/mlx)
find_package(MLX ${OPTIQ_MLX_VERSION} EXACT CONFIG QUIET HINTS ${optiq_mlx_wheel})
if(NOT MLX_FOUND)
  message(FATAL_ERROR
    "MLX ${OPTIQ_MLX_VERSION} was not found under ${OPTIQ_CACHE_DIR}/venv. "
    "Run ./scripts/setup, or pass -DCMAKE_PREFIX_PATH=<site-packages>/mlx.")
endif()
get_filename_component(OPTIQ_MLX_LIBRARY_DIR ${MLX_LIBRARY} DIRECTORY)
get_filename_component(OPTIQ_MLX_ROOT ${OPTIQ_MLX_LIBRARY_DIR} DIRECTORY)

# --- distribution packages ---------------------------------------------------
find_package(Threads REQUIRED)
find_package(fmt 9 REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(CLI11 2.1 REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_package(CURL 7.85 REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(utf8proc REQUIRED IMPORTED_TARGET libutf8proc)
# Lines of `optiq chat`. macOS has it in the system, without a .pc file.
find_library(OPTIQ_LIBEDIT edit REQUIRED)
find_path(OPTIQ_LIBEDIT_INCLUDE histedit.h REQUIRED)

# --- OpenBLAS ------------------------------------------------------------------
# Nobody calls it by name: loaded before the reference BLAS of the MLX wheel, it
# answers MLX's cblas_sgemm. A linker that drops libraries without a symbol in
# use would undo that. On a Mac MLX brings Accelerate.
set(OPTIQ_BLAS "")
if(NOT APPLE)
  pkg_check_modules(openblas REQUIRED openblas)
  set(CMAKE_LINK_LIBRARY_USING_KEPT_SUPPORTED TRUE)
  set(CMAKE_LINK_LIBRARY_USING_KEPT
    LINKER:--push-state,--no-as-needed <LINK_ITEM> LINKER:--pop-state)
  set(OPTIQ_BLAS $<LINK_LIBRARY:KEPT,${openblas_LINK_LIBRARIES}>)
endif()

# --- Highway -----------------------------------------------------------------
find_package(hwy 1.2 CONFIG QUIET)
if(NOT hwy_FOUND)
  foreach(option TESTS EXAMPLES CONTRIB INSTALL)
    set(HWY_ENABLE_${option} OFF CACHE BOOL "" FORCE)
  endforeach()
  set(HWY_FORCE_STATIC_LIBS ON CACHE BOOL "" FORCE)
  set(tree ${OPTIQ_CACHE_DIR}/src/numpy-2.4.6)
  set(sdist ${OPTIQ_CACHE_DIR}/sdist/numpy-2.4.6.tar.gz)
  if(EXISTS ${tree}/numpy/_core/src/highway AND NOT FETCHCONTENT_SOURCE_DIR_HIGHWAY)
    set(FETCHCONTENT_SOURCE_DIR_HIGHWAY ${tree}) # scripts/setup checked its hash
  endif()
  if(EXISTS ${sdist} OR FETCHCONTENT_SOURCE_DIR_HIGHWAY)
    FetchContent_Declare(highway URL ${sdist} URL_HASH SHA256=${OPTIQ_NUMPY_SDIST_SHA256}
      SOURCE_SUBDIR numpy/_core/src/highway DOWNLOAD_EXTRACT_TIMESTAMP ON SYSTEM)
  elseif(OPTIQ_OFFLINE)
    message(FATAL_ERROR "Highway >= 1.2 is missing and ${sdist} is not there. Run ./scripts/setup.")
  else()
    FetchContent_Declare(highway GIT_REPOSITORY https://github.com/google/highway.git GIT_TAG 1.3.0 SYSTEM)
  endif()
  FetchContent_MakeAvailable(highway)
  set_target_properties(hwy PROPERTIES CXX_CLANG_TIDY "") # not our source
  foreach(unused hwy_list_targets hwy_test) # 25 s of compiling
    if(TARGET ${unused})
      set_target_properties(${unused} PROPERTIES EXCLUDE_FROM_ALL ON)
    endif()
  endforeach()
  add_library(hwy::hwy ALIAS hwy)
endif()

# --- Boost -------------------------------------------------------------------
# Headers only: Asio and Beast carry the server (Debian's cpp-httplib lets
# smuggled requests and endless headers through).
find_package(Boost 1.81 CONFIG REQUIRED)
