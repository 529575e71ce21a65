"""Adapters to other people's tools for brain masks, registration and segmentation, and what carries regions to scans.

Nothing here reads files: atlases arrive as arrays. The tools are imported when they are first used, so that the
package runs without them.
"""
