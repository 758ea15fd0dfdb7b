"""Video decoding, frame-rate sampling, shards, video folders, frame caches and the emoji data set."""

from inflate.data.decode import (
    DecodedVideo,
    Timeline,
    VideoFacts,
    decode_video,
    frame_times,
    iterate_frames,
    video_facts,
)
from inflate.data.frames import FrameCache, FrameEntry, build_frame_cache
from inflate.data.listing.found import Listing, VideoItem
from inflate.data.listing.report import DataReport
from inflate.data.listing.sources import open_videos
from inflate.data.reading.pictures import VideoError
from inflate.data.sampling import ClipBatch, ClipDraw, ClipSampler, fps_curriculum, sample_clip_indices
from inflate.data.split import base_name, has_skin_tone, is_test_name

__all__ = [
    "ClipBatch",
    "ClipDraw",
    "ClipSampler",
    "DataReport",
    "DecodedVideo",
    "FrameCache",
    "FrameEntry",
    "Listing",
    "Timeline",
    "VideoError",
    "VideoFacts",
    "VideoItem",
    "base_name",
    "build_frame_cache",
    "decode_video",
    "fps_curriculum",
    "frame_times",
    "has_skin_tone",
    "is_test_name",
    "iterate_frames",
    "open_videos",
    "sample_clip_indices",
    "video_facts",
]
