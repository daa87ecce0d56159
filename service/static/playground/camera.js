// Takes a picture with the camera, where there is one and the person allows it.

import { byId } from "./dom.js";

/** ``onpicture(blob)`` is called with what was taken, ``onproblem(error)`` with why not. */
export function camera(onpicture, onproblem) {
  const place = byId("image-shot");
  const video = place.querySelector("video");

  function stop() {
    video.srcObject?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
    place.hidden = true;
  }

  async function show() {
    try {
      if (!navigator.mediaDevices) {
        throw new Error("Browsers give the camera only to pages over HTTPS or from this very machine.");
      }
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      byId("image-take").disabled = true; // until there is a picture to take
      place.hidden = false;
      await video.play();
      byId("image-take").disabled = false;
    } catch (error) {
      stop();
      onproblem(error.name === "Error" ? error : new Error(`The camera gave no picture: ${error.message}`));
    }
  }

  function take() {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      stop();
      onpicture(blob);
    }, "image/jpeg", 0.92);
  }

  byId("image-camera").addEventListener("click", show);
  byId("image-take").addEventListener("click", take);
  byId("image-stop").addEventListener("click", stop);
}
